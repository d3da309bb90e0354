"""The format of an API key: `sr_`, an 8-character prefix, a secret and a checksum, 44 characters of `[0-9A-Za-z_]`.

    sr_ 4fK29sQx Vn3…27 characters…8aB 0Lk2Pq
        prefix   secret                checksum

The prefix is independent of the secret, so it may stand in logs. The checksum (CRC-32 of all before it) lets a scanner
tell a leaked key from a look-alike without asking anybody; it protects nothing.

>>> key = generate()
>>> parse(key.text) == key
True
>>> parse(key.text[:-1] + "!") is None
True
"""

import re
import secrets
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

MARK = "sr_"
PREFIX_CHARACTERS = 8
# 27 characters of 62 are 160.7 random bits.
SECRET_CHARACTERS = 27
# 62^6 is more than 2^32.
CHECKSUM_CHARACTERS = 6
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase

_BODY_CHARACTERS = PREFIX_CHARACTERS + SECRET_CHARACTERS
# What scanners look for; they confirm a match by the checksum.
PATTERN = re.compile(rf"{MARK}[0-9A-Za-z]{{{_BODY_CHARACTERS + CHECKSUM_CHARACTERS}}}")


@dataclass(frozen=True)
class Key:
    """A well-formed key."""

    prefix: str
    text: str = field(repr=False)


def generate(choice: Callable[[str], str] = secrets.choice) -> Key:
    """A fresh key; `choice` picks one character at random."""
    body = MARK + random_text(_BODY_CHARACTERS, choice)
    return _key(body + checksum(body))


def parse(text: str) -> Key | None:
    """The key that `text` is, or None if it has another form or its checksum is wrong."""
    if not PATTERN.fullmatch(text):
        return None
    body, given = text[:-CHECKSUM_CHARACTERS], text[-CHECKSUM_CHARACTERS:]
    return _key(text) if checksum(body) == given else None


def checksum(body: str) -> str:
    """CRC-32 of the ASCII text, as six base-62 digits, the highest first."""
    rest = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        rest, digit = divmod(rest, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def random_text(characters: int, choice: Callable[[str], str] = secrets.choice) -> str:
    """Random characters of the alphabet."""
    return "".join(choice(ALPHABET) for _ in range(characters))


def _key(text: str) -> Key:
    return Key(text[len(MARK) :][:PREFIX_CHARACTERS], text)
