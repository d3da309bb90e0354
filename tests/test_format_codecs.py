"""Compression of chunks: what is compressed, and what a reader refuses."""

import os

import pytest
import zstandard

from services.models import codecs
from services.models.codecs import PLAIN, ZSTD, Compressor, expand
from services.shared.errors import DataLoss, InvalidArgument

_TEXT = b"the quick brown fox " * 20_000


@pytest.mark.parametrize("level", range(1, 10))
def test_what_shrinks_is_compressed_and_comes_back(level: int) -> None:
    codec, stored = Compressor(level).shrink(_TEXT)
    assert codec == ZSTD
    assert len(stored) < len(_TEXT)
    assert expand(codec, stored, len(_TEXT)) == _TEXT


@pytest.mark.parametrize(("level", "plain"), [(0, _TEXT), (9, os.urandom(1 << 20)), (9, b"x")])
def test_what_does_not_shrink_stays_as_it_is(level: int, plain: bytes) -> None:
    assert Compressor(level).shrink(plain) == (PLAIN, plain)


@pytest.mark.parametrize("level", [-1, 10])
def test_other_levels_are_refused(level: int) -> None:
    with pytest.raises(InvalidArgument):
        codecs.check_level(level)


def _compressed(plain: bytes, **options: bool | int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, **options)  # type: ignore[arg-type]
    return zstandard.ZstdCompressor(compression_params=parameters).compress(plain)


@pytest.mark.parametrize(
    ("codec", "stored", "length"),
    [
        (2, _TEXT, len(_TEXT)),
        (PLAIN, _TEXT, len(_TEXT) + 1),
        (ZSTD, _compressed(_TEXT), len(_TEXT) + 1),  # another size than the manifest's
        (ZSTD, _compressed(_TEXT) + b"x", len(_TEXT)),
        (ZSTD, _compressed(_TEXT) * 2, len(_TEXT)),
        (ZSTD, _compressed(_TEXT)[:-1], len(_TEXT)),
        (ZSTD, _compressed(_TEXT, write_content_size=False), len(_TEXT)),
        (ZSTD, _compressed(_TEXT, write_checksum=True), len(_TEXT)),
        (ZSTD, _TEXT, len(_TEXT) + 1),
        (ZSTD, _compressed(b"x"), 1),  # longer than the chunk itself
        (ZSTD, _compressed(bytes(1 << 30)), 1 << 20),  # a bomb is told by its header
        (ZSTD, b"", 5),
    ],
)
def test_bytes_that_no_writer_makes_are_damage(codec: int, stored: bytes, length: int) -> None:
    with pytest.raises(DataLoss, check=lambda error: error.error_reason == "CHUNK_DAMAGED"):
        expand(codec, stored, length)
