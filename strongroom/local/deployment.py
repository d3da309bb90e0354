"""`strongroom prepare`: the secrets that `docker-compose.yml` mounts, each a file that is made once and never replaced.

Who needs what is said there; here is only how it is made. What belongs together is written in an order in which the
last file says that all is there: a run that was cut off is repeated.
"""

import base64
import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from strongroom.local.contract import SERVICES
from strongroom.local.credentials import make_identities, new_admin_key
from strongroom.local.layout import write_private

# Known to nobody but who has this file: a certificate that is its own authority.
_CERTIFICATE_DAYS = 3650
_STATIC_KEYS = "# Static keys, one a line: NAME:PERMISSION_SET:KEY. docs/access.md has the sets.\n"


@dataclass(frozen=True)
class Owner:
    """Whose the files are to be."""

    user: int
    group: int


@dataclass(frozen=True)
class Deployment:
    """Makes the files in `folder`, as of `now`. `owner`: None leaves them to whoever runs this."""

    folder: Path
    now: datetime
    owner: Owner | None = None

    def make(self) -> list[str]:
        """The names of the files that were missing. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o711)  # who mounts a file by its name need not see the others'
        before = set(self.folder.iterdir())
        self._once("admin.key", lambda: new_admin_key() + "\n")
        self._once("api_keys.txt", lambda: _STATIC_KEYS)
        make_identities(self.folder)
        self._postgresql()
        self._s3()
        self._openbao()
        made = set(self.folder.iterdir()) - before
        self.give(*made)
        return sorted(file.name for file in made)

    def give(self, *paths: Path) -> None:
        """To the owner."""
        if self.owner:
            for path in paths:
                os.chown(path, self.owner.user, self.owner.group, follow_symlinks=False)

    def volumes(self, paths: Sequence[Path]) -> None:
        """Gives the owner folders that others then mount."""
        for path in paths:
            path.mkdir(mode=0o700, exist_ok=True)
            self.give(path)
            path.chmod(0o700)

    def _once(self, name: str, content: Callable[[], str]) -> str:
        file = self.folder / name
        if not file.exists():
            write_private(file, content())
        return file.read_text()

    def _postgresql(self) -> None:
        """A role for each service, which sees no schema but its own: what it may is said by who owns what."""
        self._once("postgres.password", _password)
        lines = ["REVOKE ALL ON DATABASE strongroom FROM PUBLIC;", "REVOKE ALL ON SCHEMA public FROM PUBLIC;"]
        for service in SERVICES:
            role = f"strongroom_{service}"
            # https://www.postgresql.org/docs/current/libpq-pgpass.html
            text = self._once(f"{service}.pgpass", lambda role=role: f"*:*:*:{role}:{_password()}\n")  # type: ignore[misc]
            password = text.strip().rpartition(":")[2]
            lines.append(f"CREATE ROLE {role} LOGIN PASSWORD '{password}';")
            lines.append(f"GRANT CONNECT, CREATE ON DATABASE strongroom TO {role};")
        self._once("postgres_roles.sql", lambda: "\n".join(lines) + "\n")

    def _s3(self) -> None:
        access, secret = self._once("s3_access_key", _password), self._once("s3_secret_key", _password)
        identity = {
            "name": "strongroom",
            "credentials": [{"accessKey": access, "secretKey": secret}],
            "actions": [f"{action}:strongroom" for action in ("Read", "Write", "List", "Tagging")],
        }
        self._once("s3.json", lambda: json.dumps({"identities": [identity]}) + "\n")

    def _openbao(self) -> None:
        # OpenBao reads the key and the id as they are: no line may end.
        self._once("openbao_seal", lambda: base64.b64encode(os.urandom(32)).decode())
        self._once("openbao_secret_id", _password)
        if not (self.folder / "openbao.crt").exists():
            key, certificate = _certificate("openbao", self.now)
            write_private(self.folder / "openbao_tls_key", key)
            write_private(self.folder / "openbao.crt", certificate)


def _password() -> str:
    return secrets.token_urlsafe(32)


def _certificate(host: str, now: datetime) -> tuple[str, str]:
    """A private key, and the certificate that says it is the host's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
    return private, certificate.public_bytes(pem).decode()
