"""The profile that `strongroom login` keeps: where Strongroom is, and the key. A file of mode 0600."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from strongroom.connection import DEFAULT_URL
from strongroom.errors import LocalFileError


@dataclass(frozen=True)
class Profile:
    """Address and credential of a caller."""

    url: str = DEFAULT_URL
    api_key: str = field(default="", repr=False)


def path() -> Path:
    """`$XDG_CONFIG_HOME/strongroom/profile.json`, below `~/.config` by default."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "strongroom" / "profile.json"


def current() -> Profile:
    """The profile, overridden by STRONGROOM_URL and STRONGROOM_API_KEY. Raises LocalFileError.

    The kept key goes to the kept address only: another address is not told it.
    """
    given_url, given_key = os.environ.get("STRONGROOM_URL"), os.environ.get("STRONGROOM_API_KEY")
    if given_url and given_key:
        # A script with both needs no home folder, nor a profile that can be read.
        return Profile(given_url, given_key)
    kept = _read(path())
    url = given_url or kept.url
    kept_key = kept.api_key if url.rstrip("/") == kept.url.rstrip("/") else ""
    return Profile(url, given_key or kept_key)


def save(profile: Profile) -> Path:
    """Replaces the profile, readable by its owner alone from the first byte on. Raises LocalFileError."""
    target = path()
    try:
        _write(target, profile)
    except OSError as error:
        message = f"{target} can't be written: {error.strerror}. XDG_CONFIG_HOME can name another place."
        raise LocalFileError(message, reason="PROFILE_UNWRITABLE") from None
    return target


def _write(target: Path, profile: Profile) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = target.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:  # noqa: PTH123 - the flags and the mode matter
        json.dump(asdict(profile), file)
    temporary.replace(target)


def _read(file: Path) -> Profile:
    try:
        if file.stat().st_mode & 0o077:
            message = f"{file} holds a key and may be read by others. Run: chmod 600 {file}"
            raise LocalFileError(message, reason="PROFILE_NOT_PRIVATE")
        return Profile(**json.loads(file.read_text()))
    except FileNotFoundError:
        return Profile()
    except (OSError, ValueError, TypeError):
        message = f"{file} can't be read. Run: strongroom login"
        raise LocalFileError(message, reason="PROFILE_UNREADABLE") from None
