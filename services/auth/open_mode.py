"""Open mode: whoever sends no credential may use the product. Only by name, `STRONGROOM_AUTH_MODE=open`."""

from datetime import datetime

from services.auth.permission_sets import EVERYWHERE, UNNAMED
from services.shared.identity import Grant, Principal

KIND = "anonymous"
ANONYMOUS = Principal(KIND, KIND, KIND, "", (Grant("allow", UNNAMED.permissions, (EVERYWHERE,)),))


class Anonymous:
    """The credential of whoever has none: a CredentialSource, there in open mode alone."""

    def unusable(self, credential_id: str) -> bool:
        return credential_id != KIND

    def expires_at(self, credential_id: str) -> datetime | None:
        return None

    def revoked_since(self, moment: datetime) -> list[str]:
        return []
