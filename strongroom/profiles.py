"""The profile that `strongroom login` keeps: where Strongroom is, and the key or session. A file of mode 0600."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from strongroom.authorities import CA_FILE
from strongroom.connection import DEFAULT_URL
from strongroom.errors import LocalFileError
from strongroom.session import Tokens


@dataclass(frozen=True)
class Profile:
    """Address and credential of a caller: an API key, an access token, or the session of a user."""

    url: str = DEFAULT_URL
    api_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    session: Tokens | None = None
    # Authorities that are believed about this address, in PEM; gRPC's own if empty.
    ca_file: str = ""

    def goes_to(self, url: str) -> bool:
        """Whether its credential belongs to this address."""
        return url.rstrip("/") == self.url.rstrip("/")


def path() -> Path:
    """`$XDG_CONFIG_HOME/strongroom/profile.json`, below `~/.config` by default."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "strongroom" / "profile.json"


def current() -> Profile:
    """The profile, overridden by STRONGROOM_URL, STRONGROOM_CA_FILE and STRONGROOM_API_KEY or STRONGROOM_TOKEN. Raises
    LocalFileError.

    The kept credential goes to the kept address only: another address is not told it.
    """
    given_url = os.environ.get("STRONGROOM_URL", "")
    given_key, given_token = os.environ.get("STRONGROOM_API_KEY", ""), os.environ.get("STRONGROOM_TOKEN", "")
    given_ca = os.environ.get(CA_FILE, "")
    if given_url and (given_key or given_token):
        # A script with both needs no home folder, nor a profile that can be read.
        return Profile(given_url, given_key, given_token, ca_file=given_ca)
    kept = _read(path())
    url = given_url or kept.url
    ca_file = given_ca or (kept.ca_file if kept.goes_to(url) else "")
    if given_key or given_token:
        return Profile(url, given_key, given_token, ca_file=ca_file)
    return replace(kept, url=url, ca_file=ca_file) if kept.goes_to(url) else Profile(url, ca_file=ca_file)


def overriding() -> list[str]:
    """The variables by which the environment's credential goes before the one that is kept."""
    return [name for name in ("STRONGROOM_API_KEY", "STRONGROOM_TOKEN") if os.environ.get(name)]


def kept() -> Profile:
    """The profile as it is kept, whatever the environment says. Raises LocalFileError."""
    return _read(path())


def save(profile: Profile) -> Path:
    """Replaces the profile, readable by its owner alone from the first byte on. Raises LocalFileError."""
    with _locked() as target:
        _write(target, profile)
    return target


def forget() -> Profile:
    """Removes the credential from the profile; the address stays. Returns what was kept. Raises LocalFileError."""
    with _locked() as target:
        kept = _read(target)
        _write(target, Profile(kept.url, ca_file=kept.ca_file))
    return kept


class KeptSession:
    """The session in the profile, which other commands may renew at the same time."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        self._url = url
        self._ca_file = ca_file

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with _locked():
            yield

    def load(self) -> Tokens | None:
        kept = _read(path())
        return kept.session if kept.goes_to(self._url) else None

    def save(self, tokens: Tokens | None) -> None:
        """Only inside of `exclusive`."""
        try:
            _write(path(), Profile(self._url, session=tokens, ca_file=self._ca_file))
        except OSError as error:
            raise _unwritable(path(), error) from None


@contextmanager
def _locked() -> Iterator[Path]:
    """One process at a time changes the profile. Yields where it is."""
    target = path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(target.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield target
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unwritable(target, error) from None


def _unwritable(target: Path, error: OSError) -> LocalFileError:
    message = f"{target} can't be written: {error.strerror}. XDG_CONFIG_HOME can name another place."
    return LocalFileError(message, reason="PROFILE_UNWRITABLE")


def _write(target: Path, profile: Profile) -> None:
    temporary = target.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:  # noqa: PTH123 - the flags and the mode matter
        json.dump(asdict(profile), file)
        file.flush()
        # A refresh token works once: after a crash the old one would end the session.
        os.fsync(descriptor)
    temporary.replace(target)


def _read(file: Path) -> Profile:
    try:
        if file.stat().st_mode & 0o077:
            message = f"{file} holds a key and may be read by others. Run: chmod 600 {file}"
            raise LocalFileError(message, reason="PROFILE_NOT_PRIVATE")
        fields = json.loads(file.read_text())
        session = fields.pop("session", None)
        return Profile(**fields, session=Tokens(**session) if session else None)
    except FileNotFoundError:
        return Profile()
    except (OSError, ValueError, TypeError, AttributeError):
        message = f"{file} can't be read. Run: strongroom login"
        raise LocalFileError(message, reason="PROFILE_UNREADABLE") from None
