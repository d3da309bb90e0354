"""How a chunk becomes the bytes that are encrypted (docs/format.md): as it is, or as a zstd frame (RFC 8878)."""

from typing import Final

import zstandard

from services.shared.errors import DataLoss, InvalidArgument
from strongroom.chunking import Buffer

PLAIN: Final = 0
ZSTD: Final = 1
CODECS = (PLAIN, ZSTD)
MAX_LEVEL = 9
# No compression, unless it is asked for: most weights are noise to it.
DEFAULT_LEVEL = 0

# A window is no longer than the longest chunk: what a frame may make a reader allocate.
_MAX_WINDOW = 4 << 20
# Whoever shrinks less than this part of a sample is left as it is: reading it back would cost more than it saves.
_SAMPLE_BYTES = 64 << 10
_WORTHWHILE = 15 / 16


def check_level(level: int | None) -> int:
    """The level, or the default for None. InvalidArgument with reason COMPRESSION_LEVEL_INVALID."""
    level = DEFAULT_LEVEL if level is None else level
    if not 0 <= level <= MAX_LEVEL:
        message = f"`compression_level` is 0 (none) to {MAX_LEVEL} (smallest)."
        raise InvalidArgument(message, reason="COMPRESSION_LEVEL_INVALID")
    return level


class Compressor:
    """Compresses chunks at a level of 1 to 9, zstd's own; at 0 none. One thread at a time."""

    def __init__(self, level: int) -> None:
        self._sampler = zstandard.ZstdCompressor(level=1)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level or 1, window_log=22, write_content_size=True, write_checksum=False, write_dict_id=False
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters) if level else None

    def shrink(self, plain: Buffer) -> tuple[int, Buffer]:
        """Codec and bytes: those of zstd if they are fewer, else the chunk itself."""
        if self._compressor is None or not self._promising(memoryview(plain)):
            return PLAIN, plain
        frame = self._compressor.compress(plain)
        return (ZSTD, frame) if len(frame) < len(plain) else (PLAIN, plain)

    def _promising(self, plain: memoryview) -> bool:
        """Looks at the middle: headers at the beginning shrink and tell nothing of the rest."""
        middle = max(0, (len(plain) - _SAMPLE_BYTES) // 2)
        sample = plain[middle : middle + _SAMPLE_BYTES]
        return len(self._sampler.compress(sample)) < len(sample) * _WORTHWHILE


def expand(codec: int, stored: Buffer, length: int) -> Buffer:
    """The chunk, of `length` bytes. DataLoss with reason CHUNK_DAMAGED for bytes that no writer makes."""
    if codec == PLAIN and len(stored) == length:
        return stored
    if codec == ZSTD and len(stored) < length:
        try:
            frame = zstandard.get_frame_parameters(stored)
            plain_frame = not frame.has_checksum and not frame.dict_id and frame.window_size <= _MAX_WINDOW
            if plain_frame and frame.content_size == length:
                # The size that is stated is what it allocates, and it must come out as stated.
                return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError:
            pass
    raise DataLoss("Stored bytes are damaged: restore them from a copy.", reason="CHUNK_DAMAGED")
