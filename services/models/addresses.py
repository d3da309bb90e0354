"""Addresses of data, code and models elsewhere. They are kept and shown, never opened. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from services.shared.errors import InvalidArgument

OURS = "strongroom"
SCHEMES = ("https", "http", "s3", "gs", OURS)

_OUR_PATH = re.compile(r"/([A-Za-z0-9._-]{1,128})/([A-Za-z0-9._-]{1,128})")
_OUR_MANAGER = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SECRET = re.compile(r"token|secret|signature|passw|credential|key|^sig$|^auth", re.IGNORECASE)
_NOT_A_NAME = {"", "tree", "blob", "main", "master", "resolve"}


class AddressInvalid(InvalidArgument):
    """No address, or one that holds what nobody may see."""

    reason = "URL_INVALID"


@dataclass(frozen=True)
class StoredVersion:
    """What an address `strongroom://MANAGER/MODEL/VERSION` names."""

    manager_id: str
    model_name: str
    version: str


def check(url: str) -> None:
    """Raises AddressInvalid, without the address: in what is refused a password may stand."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise AddressInvalid("An address is printable ASCII without spaces.")
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise AddressInvalid("This is no address.") from None
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise AddressInvalid(f"An address begins with one of {', '.join(SCHEMES)}, and :// and a host behind it.")
    if "@" in parts.netloc or any(_SECRET.search(name) for name, _ in query):
        raise AddressInvalid("The address holds a password or a token, which everybody could read. Leave it out.")
    if parts.scheme == OURS and stored_version(url) is None:
        raise AddressInvalid("An address of something stored here looks like strongroom://MANAGER/MODEL/VERSION.")


def stored_version(url: str) -> StoredVersion | None:
    """The version an address of ours names."""
    parts = urlsplit(url)
    names = _OUR_PATH.fullmatch(parts.path)
    plain = not parts.query and not parts.fragment
    if parts.scheme != OURS or not plain or names is None or not _OUR_MANAGER.fullmatch(parts.netloc):
        return None
    if {".", ".."} & {parts.netloc, *names.groups()}:
        return None
    return StoredVersion(parts.netloc, names[1], names[2])


def name_in(url: str) -> str:
    """What the address calls it: its last part that is a name."""
    stored = stored_version(url)
    if stored is not None:
        return stored.model_name
    parts = urlsplit(url)
    names = [unquote(part) for part in parts.path.split("/") if part not in _NOT_A_NAME]
    name = names[-1] if names else parts.netloc
    return name.removesuffix(".git")[:256]
