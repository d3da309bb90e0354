"""The keys of a manager without encryption: public, so that one format and one code path serve it too (docs/format.md).

Its packs and manifests look like any others, and what detects damage in those detects it in these. Confidential they
are not: whoever has the bytes has the keys.
"""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# Stands in place of a key-encryption key's id.
PUBLIC_KEK = "public"

_PREFIX = "public-"
_SECRET = b"strongroom public key v1"


def public_id(unique: str) -> str:
    """The id of a public key. Ids of the secrets service have no hyphen, so no such key is ever taken for another."""
    return _PREFIX + unique


def is_public(key_id: str) -> bool:
    """Whether the key follows from its id."""
    return key_id.startswith(_PREFIX)


def public_key(key_id: str) -> bytes:
    """The 32 bytes of a public key."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=key_id.encode()).derive(_SECRET)
