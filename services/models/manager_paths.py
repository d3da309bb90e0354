"""Paths in a manager: logical names, which never reach a file system. Pure.

>>> logical("./models/fraud", "./models/fraud/scorer.pkl")
'scorer.pkl'
>>> shown("./models/fraud", "scorer.pkl")
'./models/fraud/scorer.pkl'
"""

import re

from services.models.manifests import valid_path
from services.shared.errors import InvalidArgument

# Whatever another system would take for a root, a separator or the end of a name.
_ELSEWHERE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]")
# Longer ones belong to the name.
_SUFFIX = re.compile(r"\.[A-Za-z0-9_-]{1,16}$")
_MOST_NAME = 128


class PathInvalid(InvalidArgument):
    """No path inside a manager."""

    reason = "PATH_INVALID"


def logical(model_path: str, path: str) -> str:
    """The path below the manager's own, without which it may be given too. Raises PathInvalid."""
    root = _relative(model_path).removesuffix("/")
    cleaned = _checked(_relative(path))
    return cleaned.removeprefix(f"{root}/") if root else cleaned


def shown(model_path: str, path: str) -> str:
    """The logical path as answers have it."""
    return f"{model_path.rstrip('/')}/{path}"


def check_root(model_path: str) -> None:
    """Raises PathInvalid unless paths may begin so."""
    root = _relative(model_path).removesuffix("/")
    if model_path.startswith("/") or root:
        _checked(root)


def named(filename: str) -> tuple[str, str]:
    """Model name and suffix of a file that was sent: `scorer.pkl` is `scorer` and `.pkl`. Raises PathInvalid.

    Characters that no name may have become `_`.
    """
    if "/" in filename or filename in (".", ".."):
        raise PathInvalid("A file that is sent is named, not placed: leave folders out of its name.")
    name = _UNUSUAL.sub("_", _checked(filename))
    found = _SUFFIX.search(name)
    suffix = found.group() if found else ""
    stem = name.removesuffix(suffix)
    if not stem.strip(".") or len(stem) > _MOST_NAME:
        raise PathInvalid(f"The file's name makes no name of a model: 1 to {_MOST_NAME} characters before its suffix.")
    return stem, suffix


def _relative(path: str) -> str:
    while path.startswith("./"):
        path = path[2:]
    return "" if path == "." else path


def _checked(path: str) -> str:
    if not valid_path(path) or _ELSEWHERE.search(path):
        raise PathInvalid(
            "A path is relative, has no part that is empty, `.` or `..`, no backslash and at most 1024 bytes."
        )
    return path
