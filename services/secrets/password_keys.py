"""Keys made of passwords.

Such a KEK is wrapped by the root key like a random one, so it protects nothing from whoever runs the service, and
survives a restart without the password. It gives the password's owner a way to make the KEK anew from what stands
beside it, if the root key is lost.
"""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from services.secrets.envelope import KEY_BYTES
from services.shared.errors import InvalidArgument

# OWASP's password storage cheat sheet: 2^15, 8, 3; 32 MiB.
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 3}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
ITERATIONS = range(100_000, 5_000_001)
_SALT_BYTES = 16
# One at a time in a process: what it takes of memory and processors is bounded.
_deriving = threading.Lock()


class DerivationInvalid(InvalidArgument):
    """No way in which a password may become a key here."""

    reason = "DERIVATION_INVALID"


@dataclass(frozen=True)
class KekPassword:
    """A password, and how it becomes a key: by PBKDF2 with this hash, or without one by scrypt."""

    password: str = field(repr=False)
    pbkdf2_hash: str = ""
    iterations: int = 0

    def derive(self, random: Callable[[int], bytes] = os.urandom) -> tuple[bytes, str]:
        """A key of 32 bytes under a fresh salt, and all but the password that it takes to make it again, as JSON.

        Raises DerivationInvalid.
        """
        salt = random(_SALT_BYTES)
        if not self.pbkdf2_hash:
            with _deriving:
                key = Scrypt(salt=salt, length=KEY_BYTES, **_SCRYPT).derive(self.password.encode())
            return key, json.dumps({"function": "scrypt", "salt": salt.hex(), **_SCRYPT})
        algorithm = _HASHES.get(self.pbkdf2_hash)
        if algorithm is None or self.iterations not in ITERATIONS:
            message = f"PBKDF2 takes one of {', '.join(_HASHES)} and 100000 to 5000000 iterations."
            raise DerivationInvalid(message)
        kdf = PBKDF2HMAC(algorithm=algorithm, length=KEY_BYTES, salt=salt, iterations=self.iterations)
        parameters = {"hash": self.pbkdf2_hash, "iterations": self.iterations}
        with _deriving:
            key = kdf.derive(self.password.encode())
        return key, json.dumps({"function": "pbkdf2", "salt": salt.hex(), **parameters})
