"""What a password must be, after NIST SP 800-63B-4, section 3.1.1.2: long, and not one that is tried first.

There are no rules about kinds of characters, and passwords do not expire: both make people choose worse ones.

>>> check("correct horse battery staple", "ada@example.com")
>>> check("password123456", "ada@example.com")
Traceback (most recent call last):
services.auth.password_rules.PasswordWeak: This password is one of the first that are tried. Take another one.
"""

import secrets
import string
import unicodedata
from collections.abc import Callable

from services.shared.errors import InvalidArgument

MIN_CHARACTERS, MAX_CHARACTERS = 12, 1024

# Without 0, 1, I, L, O and U: what people mix up. Twenty characters are 98 random bits.
_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
_GROUPS, _GROUP_CHARACTERS = 4, 5
# What fingers run along, and words that passwords are made of which say nothing but "password".
_RUNS = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "zaq12wsxcde34rfvbgt56yhn",
)
_WORDS = frozenset(
    """
    admin administrator change changeit changeme changethis default dragon example football fuckyou guest hello iloveyou
    letmein login master me monkey my newpassword p pass passw0rd passwd password passwort princess qwerty qwertyuiop
    root secret secure strongpassword strongroom sunshine superman supersecret temp temporary test testing the this
    trustno1 user welcome welcometo yourpassword yoursecurepassword in production dev development abc is
    """.split()  # noqa: SIM905 - a list that a person reads
)
_LONGEST_WORD = max(map(len, _WORDS))
# A short text said again and again, such as `abcabcabcabc`.
_UNIT_CHARACTERS = 4
_LOOK_ALIKES = str.maketrans("@$03", "asoe")


class PasswordWeak(InvalidArgument):
    """The password is one of the first that are tried, or the old one. Take another one."""

    reason = "PASSWORD_WEAK"


def normalize(password: str) -> str:
    """NFKC, so that a password typed on another keyboard is the same one (SP 800-63B-4, section 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, email: str) -> None:
    """Lets a new password pass. Raises PasswordWeak, without the password."""
    text = normalize(password)
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        raise PasswordWeak(f"A password needs {MIN_CHARACTERS} to {MAX_CHARACTERS} characters.")
    plain, address = text.casefold(), normalize(email).casefold()
    if plain.strip() in (address, address.partition("@")[0]):
        raise PasswordWeak("The e-mail address is no password. Take another one.")
    if _common(plain):
        raise PasswordWeak("This password is one of the first that are tried. Take another one.")


def make_up(choice: Callable[[str], str] = secrets.choice) -> str:
    """A random password that can be read out, such as `k7m2q-…`: 20 characters in groups of five."""
    groups = ("".join(choice(_ALPHABET) for _ in range(_GROUP_CHARACTERS)) for _ in range(_GROUPS))
    return "-".join(groups)


def _common(plain: str) -> bool:
    """Whether it is a repeated unit, a run along the keyboard, or well-known words with digits behind them."""
    letters = "".join(filter(str.isalnum, plain))
    if not letters or any(_repeats(plain, size) for size in range(1, _UNIT_CHARACTERS + 1)):
        return True
    if any(letters in run or letters in run[::-1] for run in _RUNS):
        return True
    stem = plain.strip(string.digits + string.punctuation + " ")
    spellings = ("".join(filter(str.isalnum, spelling)) for spelling in (stem, stem.translate(_LOOK_ALIKES)))
    return any(_of_words(spelling) for spelling in spellings)


def _repeats(text: str, size: int) -> bool:
    return text == (text[:size] * (len(text) // size + 1))[: len(text)]


def _of_words(text: str) -> bool:
    """Whether the text is nothing but well-known words, one behind the other."""
    reached = {0}
    for start in range(len(text)):
        if start in reached:
            ends = range(start + 1, min(len(text), start + _LONGEST_WORD) + 1)
            reached.update(end for end in ends if text[start:end] in _WORDS)
    return bool(text) and len(text) in reached
