"""One bearer token that the environment gives, `STRONGROOM_AUTH_TOKEN`: sent as `Authorization: Bearer …`."""

import hmac
from datetime import datetime

from services.auth import chosen_secrets
from services.auth.admission import Attempt, Rejected
from services.auth.pepper import Pepper
from services.auth.permission_sets import EVERYWHERE, UNNAMED
from services.shared.identity import Grant, Principal

KIND = "token"
NAME = "fixed"
_FINGERPRINT_CHARACTERS = 8


class FixedToken:
    """Knows the token, which may use the product and administer nothing: an Authenticator and a CredentialSource.

    Raises ValueError, without the value, for one that can't be used.
    """

    def __init__(self, value: str, pepper: Pepper) -> None:
        self._value = chosen_secrets.check(value, "STRONGROOM_AUTH_TOKEN")
        if " " in value:
            raise ValueError("STRONGROOM_AUTH_TOKEN must have no blanks.")
        self._pepper = pepper

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        scheme, _, token = (attempt.authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= chosen_secrets.MAX_CHARACTERS:
            return None
        # Hashes, because comparing texts of other lengths takes another time.
        return self.principal() if hmac.compare_digest(self._pepper.hash(token), self._hash()) else None

    def unusable(self, credential_id: str) -> bool:
        """Whether it is not the token of this installation."""
        return credential_id != self.principal().credential_id

    def expires_at(self, credential_id: str) -> datetime | None:
        """Never: it ends with the setting."""
        return None

    def revoked_since(self, moment: datetime) -> list[str]:
        """None: it changes with a restart alone."""
        return []

    def principal(self) -> Principal:
        """Whoever has the token."""
        fingerprint = self._hash().hex()[:_FINGERPRINT_CHARACTERS]
        grant = Grant("allow", UNNAMED.permissions, (EVERYWHERE,))
        return Principal(f"{KIND}:{NAME}", NAME, f"{KIND}:{NAME}:{fingerprint}", fingerprint, (grant,))

    def _hash(self) -> bytes:
        return self._pepper.hash(self._value)
