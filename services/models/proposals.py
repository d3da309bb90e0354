"""What an uploader wants to commit, and the rules it has to keep. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.models.manifests import valid_path
from services.shared.errors import InvalidArgument
from strongroom.chunking import DIGEST_BYTES, MAX_CHUNK

SHA256_BYTES = 32


class ProposalInvalid(InvalidArgument):
    """The files cannot become a version."""

    reason = "FILES_INVALID"


@dataclass(frozen=True)
class ProposedFile:
    """A file as a list of chunks: `digests` are their BLAKE3, 32 bytes each, one after another; `lengths` in bytes."""

    path: str
    sha256: bytes
    digests: bytes
    lengths: Sequence[int]


def proposed(path: str, sha256: bytes, digests: bytes, lengths: Sequence[int]) -> ProposedFile:
    """The file as a request lists it, with lengths of its own. Raises ProposalInvalid before it copies too many."""
    _check_count(path, digests, lengths)
    return ProposedFile(path, sha256, digests, tuple(lengths))


def check(files: Sequence[ProposedFile]) -> None:
    """Raises ProposalInvalid, naming the path, unless the files can stand side by side and are lists of chunks."""
    if not files:
        raise ProposalInvalid("A version has at least one file.")
    for file in files:
        check_path(file.path)
        _check_chunks(file)
    _check_names(files)


def check_path(path: str) -> None:
    """Raises ProposalInvalid unless a file of a version may have this path."""
    if not valid_path(path):
        raise ProposalInvalid(
            "A path is relative, has no part that is empty, `.` or `..`, and at most 1024 bytes.", path=path[:256]
        )


def _check_chunks(file: ProposedFile) -> None:
    if len(file.sha256) != SHA256_BYTES:
        raise ProposalInvalid("`sha256` has 32 bytes.", path=file.path)
    _check_count(file.path, file.digests, file.lengths)
    if not all(0 < length <= MAX_CHUNK for length in file.lengths):
        raise ProposalInvalid(f"A chunk has 1 to {MAX_CHUNK} bytes.", path=file.path)


def _check_count(path: str, digests: bytes, lengths: Sequence[int]) -> None:
    if len(digests) != DIGEST_BYTES * len(lengths):
        raise ProposalInvalid("A file has a digest of 32 bytes and a length for each chunk.", path=path[:256])


def _check_names(files: Sequence[ProposedFile]) -> None:
    """No path twice, and none that is both file and folder: pulled to a disk they could not stand side by side."""
    # NUL sorts before everything a path may have, so whatever is below a path follows it at once.
    paths = sorted(file.path.replace("/", "\0") for file in files)
    for path, following in pairwise(paths):
        if following == path or following.startswith(path + "\0"):
            message = "A path appears twice, or as a file and as a folder."
            raise ProposalInvalid(message, path=path.replace("\0", "/"))
