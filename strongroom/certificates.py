"""A certificate and its key, as files hold them: read, checked as a pair, and looked at again when they change.

For servers; clients only name a file of authorities (`strongroom/authorities.py`).
"""

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

# Parts know each other by names of their own, which no resolver has a say in: `models.strongroom.internal`. ICANN keeps
# `internal` for private use (https://www.icann.org/en/board-activities-and-meetings/materials/2024-07-29).
DOMAIN = "strongroom.internal"
SERVICES = ("auth", "models", "secrets")
GATEWAY = "gateway"
PARTS = (GATEWAY, *SERVICES)

_MOST_BYTES = 256 << 10
_LEAST_RSA_BITS = 2048


class CertificateError(ValueError):
    """A certificate or a key can't be used. The message names the file, and has nothing of what is in it."""


def name_of(part: str) -> str:
    """The name in a part's certificate."""
    return f"{part}.{DOMAIN}"


def part_named(name: str) -> str | None:
    """The part that has this name; None for every other name."""
    part, _, domain = name.partition(".")
    return part if domain == DOMAIN and part in PARTS else None


@dataclass(frozen=True)
class Pair:
    """A certificate with those that lead to its authority, and its private key: both PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    leaf: x509.Certificate

    @property
    def fingerprint(self) -> bytes:
        """The certificate as it is shown in a handshake (DER)."""
        return self.leaf.public_bytes(Encoding.DER)


def read_pair(certificate: Path, key: Path | None = None, now: datetime | None = None) -> Pair:
    """Reads a certificate and its key, from one file or two. Raises CertificateError, also for one that has expired."""
    key_file = key or certificate
    chain = read_certificates(certificate)
    private = _private_key(key_file)
    leaf = chain[0]
    if _public(leaf.public_key()) != _public(private.public_key()):
        raise CertificateError(f"The key in {key_file} is not that of the certificate in {certificate}.")
    if leaf.not_valid_after_utc <= (now or datetime.now(UTC)):
        ended = f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise CertificateError(f"The certificate in {certificate} has expired ({ended}). Put a new one there.")
    # As we write it: what else is in the files goes nowhere.
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
    return Pair(pem, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), leaf)


def read_certificates(file: Path) -> list[x509.Certificate]:
    """The certificates in a file, in its order; one at least. Raises CertificateError."""
    content = _read(file)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise CertificateError(f"{file} holds no certificate in PEM.") from None


def as_pem(certificates: list[x509.Certificate]) -> bytes:
    """The certificates one after another."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def versions(*files: Path) -> tuple[tuple[int, int, int], ...]:
    """What changes whenever one of the files is replaced, written or given another mode; zeros for one that is gone."""
    found = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_ino, status.st_ctime_ns, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def _private_key(file: Path) -> EllipticCurvePrivateKey | RSAPrivateKey:
    content = _read(file, private=True)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise CertificateError(f"The key in {file} is locked by a passphrase; store it without one.") from None
    except ValueError:
        raise CertificateError(f"{file} holds no private key in PEM.") from None
    # What Envoy takes: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/security/ssl
    if not isinstance(key, EllipticCurvePrivateKey) and not (
        isinstance(key, RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS
    ):
        raise CertificateError(f"The key in {file} is neither ECDSA nor RSA of {_LEAST_RSA_BITS} bits or more.")
    return key


def _read(file: Path, *, private: bool = False) -> bytes:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise CertificateError(f"{file} is no file.")
            if private and mode & 0o077:
                raise CertificateError(f"{file} holds a key and may be read by others; run: chmod 600 {file}")
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{file} can't be read: {error.strerror}.") from None
    if len(content) > _MOST_BYTES:
        raise CertificateError(f"{file} is larger than {_MOST_BYTES >> 10} KiB.")
    return content


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded
