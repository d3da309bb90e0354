"""The format of API keys."""

import random

from hypothesis import given
from hypothesis import strategies as st

from services.auth import key_format

_positions = st.integers(0, len(key_format.generate().text) - 1)
_seeds = st.integers(0, 2**64)


def _generate(seed: int) -> key_format.Key:
    return key_format.generate(random.Random(seed).choice)


@given(_seeds)
def test_a_generated_key_parses_to_itself(seed: int) -> None:
    key = _generate(seed)
    assert key_format.parse(key.text) == key
    assert key.text.startswith(f"sr_{key.prefix}")
    assert len(key.prefix) == 8
    assert len(key.text) == 44


@given(_seeds, _positions, st.sampled_from(key_format.ALPHABET + "_-! é"))
def test_a_key_with_one_character_changed_is_no_key(seed: int, position: int, character: str) -> None:
    text = _generate(seed).text
    changed = text[:position] + character + text[position + 1 :]
    assert changed == text or key_format.parse(changed) is None


@given(_seeds, _positions)
def test_a_cut_key_is_no_key(seed: int, length: int) -> None:
    assert key_format.parse(_generate(seed).text[:length]) is None


@given(st.text())
def test_any_text_parses_to_a_key_or_to_nothing(text: str) -> None:
    assert key_format.parse(text) is None


def test_the_secret_has_160_random_bits_and_keys_differ() -> None:
    assert len(key_format.ALPHABET) ** key_format.SECRET_CHARACTERS >= 2**160
    assert len({key_format.generate().text for _ in range(100)}) == 100


def test_a_scanner_finds_a_leaked_key_in_a_text() -> None:
    key = key_format.generate()
    found = key_format.PATTERN.search(f"export KEY={key.text}\n")
    assert found is not None
    assert key_format.parse(found.group()) == key


def test_the_checksum_is_the_documented_one() -> None:
    # zlib.crc32(b"123456789") is the check value of CRC-32, 0xcbf43926.
    assert _base62(key_format.checksum("123456789")) == 0xCBF43926


def test_the_repr_of_a_key_shows_its_prefix_alone() -> None:
    key = key_format.generate()
    assert repr(key) == f"Key(prefix='{key.prefix}')"


def _base62(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 62 + key_format.ALPHABET.index(digit)
    return value
