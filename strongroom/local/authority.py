"""An authority of one's own: makes certificates for the parts of one Strongroom. Pure; `pki` keeps them in files.

Its certificate is limited to the names that it speaks for (RFC 5280, section 4.2.1.10): who trusts it trusts it about
nobody else, and a stolen key of it is worth no more.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.certificates import DOMAIN, GATEWAY, name_of

# What callers see.
EDGE = "edge"

AUTHORITY_LIFE = timedelta(days=3650)
# A leaf is replaced when a third of its life is left.
LEAF_LIFE = timedelta(days=30)
RENEW_BEFORE = LEAF_LIFE / 3
# Clocks of two machines may differ by so much.
SKEW = timedelta(minutes=5)

_HOST = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class HostInvalid(ValueError):
    """Neither a host name nor an address. The message says so."""


def host(text: str) -> str:
    """A host name or an IP address as certificates hold it. Raises HostInvalid."""
    name = text.strip().lower().strip("[]")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    # A name whose last label is a number would be an address to some (RFC 3696, section 2).
    if not _HOST.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise HostInvalid(f"{text[:100]!r} is neither a host name nor an IP address.")
    return name


@dataclass(frozen=True)
class Authority:
    """The certificate of an authority and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(cls, hosts: Sequence[str], now: datetime) -> "Authority":
        """A new one, which speaks for the parts and for `hosts`."""
        key = ec.generate_private_key(ec.SECP256R1())
        # Two authorities never have one name: whoever checks a chain finds the right one at once.
        mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Strongroom authority {now:%Y-%m-%d} {mark}")])
        # BoringSSL, which Envoy and gRPC use, knows no limits on addresses.
        permitted = [x509.DNSName(one) for one in (DOMAIN, *hosts) if not _is_address(one)]
        builder = _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def speaks_for(self, names: Sequence[str]) -> bool:
        """Whether a certificate of it with these names is believed."""
        limits = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
        permitted = [limit.value for limit in limits or ()]
        return all(_is_address(n) or any(n == p or n.endswith(f".{p}") for p in permitted) for n in names)

    def issue(self, part: str, hosts: Sequence[str], now: datetime) -> bytes:
        """A new key and a certificate for it, in PEM. The edge has `hosts` as names, a part its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part)])
        builder = _builder(name, self.certificate.subject, key.public_key(), now, LEAF_LIFE)
        # What callers are shown opens nothing inside, and the gateway's own is no server's.
        usages = {EDGE: [_SERVER], GATEWAY: [_CLIENT]}.get(part, [_SERVER, _CLIENT])
        names = [_general(one) for one in (hosts if part == EDGE else [name_of(part)])]
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return private_pem(key) + certificate.public_bytes(Encoding.PEM)


def issued(authority: x509.Certificate, leaf: x509.Certificate) -> bool:
    """Whether a certificate is of the authority that has this one."""
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key, unlocked."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def names_in(leaf: x509.Certificate) -> list[str]:
    """The host names and addresses for which a certificate stands."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def is_due(leaf: x509.Certificate, now: datetime) -> bool:
    """Whether a certificate is to be replaced."""
    return leaf.not_valid_after_utc - now <= RENEW_BEFORE


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
