"""What a caller shows with every call: a key, a token, or the token of the moment of a session."""

from typing import Protocol

from strongroom.errors import InvalidArgument, Unauthenticated

Metadata = tuple[tuple[str, str], ...]

# Characters of an access code.
_MAX_CODE = 1024


class TokenSource(Protocol):
    """Gives access tokens that are valid at the time."""

    def access_token(self) -> str:
        """A token, got from the server if none is held. Raises Unauthenticated if there is none any more."""

    def held(self) -> str | None:
        """A token, if one is held that need not be renewed. Calls nobody."""


class Credential:
    """The credential of a connection, and of all copies of it."""

    def __init__(self, api_key: str | None = None, token: str | None = None) -> None:
        self._source: TokenSource | None = None
        self._fixed: Metadata = ()
        if api_key:
            self._fixed = (("x-api-key", _header_value(api_key, "API key")),)
        elif token:
            self._fixed = _bearer(_header_value(token, "token"))

    def act_as(self, source: TokenSource | None) -> None:
        """From now on calls carry the source's tokens; None: the credential of the beginning."""
        self._source = source

    def metadata(self) -> Metadata:
        """As a call carries it. May call the server; raises Unauthenticated if a session has ended."""
        source = self._source
        return self._fixed if source is None else _bearer(source.access_token())

    def held(self) -> Metadata | None:
        """The same, if it is at hand."""
        source = self._source
        if source is None:
            return self._fixed
        token = source.held()
        return None if token is None else _bearer(token)


def presented(access_code: str) -> Metadata:
    """The access code of a protected version, as a call carries it. Raises InvalidArgument."""
    check_access_code(access_code)
    return (("x-access-code", access_code),)


def check_access_code(code: str) -> None:
    """Raises InvalidArgument, which does not repeat it, for a code that no header can carry."""
    if not (code.isascii() and code.isprintable() and code == code.strip() and 0 < len(code) <= _MAX_CODE):
        message = (
            f"An access code travels in a header: choose one of 1 to {_MAX_CODE} printable ASCII characters, without a "
            "space at its ends."
        )
        raise InvalidArgument(message, reason="ACCESS_CODE_INVALID")


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def _header_value(value: str, what: str) -> str:
    """The value as a header carries it. Raises Unauthenticated, which does not repeat it."""
    stripped = value.strip()
    if not (stripped.isascii() and stripped.isprintable()):
        message = f"The {what} has characters that no {what} has. Copy it again."
        raise Unauthenticated(message, reason="CREDENTIAL_INVALID")
    return stripped
