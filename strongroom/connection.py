"""The channel to a Strongroom: credential, deadlines, retries, errors."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import grpc

from strongroom import errors
from strongroom.authorities import channel_credentials
from strongroom.breaker import Breaker
from strongroom.retries import Repeat, Retries
from strongroom.route import Route

if TYPE_CHECKING:
    Asked = TypeVar("Asked")
    Answer = TypeVar("Answer")

DEFAULT_URL = "http://127.0.0.1:8080"
# Seconds a call may take that moves no files.
DEADLINE = 30.0
# Seconds for a call that may read or write gigabytes on the server before it answers.
LONG_DEADLINE = 3600.0

Metadata = tuple[tuple[str, str], ...]

# Characters of an access code.
_MAX_CODE = 1024

_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
]


class Connection:
    """A channel that presents a credential with every call and raises `StrongroomError`.

    Args:
        url: `http://HOST:PORT` or `https://HOST[:PORT]`.
        api_key: an API key; or
        token: an access token.
        retries: repeats calls.
        breaker: keeps calls from a server that is not there.
        direct: whether bulk streams may go past the gateway where that is possible.
        ca_file: authorities in PEM that are believed instead of gRPC's own.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        token: str | None = None,
        retries: Retries | None = None,
        breaker: Breaker | None = None,
        direct: bool = True,
        ca_file: Path | str | None = None,
    ) -> None:
        self.channel = _channel(url, ca_file)
        self.url = url.rstrip("/")
        self.route = Route(self, _OPTIONS, direct=direct)
        self._retries = retries or Retries()
        self._breaker = breaker or Breaker()
        self._direct = direct
        self.presented: Metadata = ()
        self._token_source: Callable[[], str] | None = None
        self._fixed: Metadata = ()
        if api_key:
            self._fixed = (("x-api-key", header_value(api_key, "API key")),)
        elif token:
            self._fixed = (("authorization", f"Bearer {header_value(token, 'token')}"),)

    def act_as(self, token_source: Callable[[], str] | None) -> None:
        """From now on calls carry the token that this returns at the time; None for the credential of the beginning."""
        self._token_source = token_source

    @property
    def metadata(self) -> Metadata:
        """The credential, as a call carries it. Raises Unauthenticated if a session has ended."""
        source = self._token_source
        credential = (("authorization", f"Bearer {source()}"),) if source is not None else self._fixed
        return (*credential, *self.presented)

    @contextmanager
    def presenting(self, access_code: str | None) -> "Iterator[Connection]":
        """This connection, whose calls also present the access code of a protected version. Raises InvalidArgument."""
        if access_code is None:
            yield self
            return
        check_access_code(access_code)
        other = copy.copy(self)
        other.presented = (("x-access-code", access_code),)
        other.route = Route(other, _OPTIONS, direct=self._direct)
        try:
            yield other
        finally:
            other.route.close()

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Asked, Answer]",
        request: "Asked",
        *,
        repeat: Repeat = Repeat.REFUSED,
        deadline: float = DEADLINE,
        anonymous: bool = False,
    ) -> "Answer":
        """Calls a method with one answer.

        Args:
            repeat: after which failures it may be made again.
            deadline: seconds for one attempt.
            anonymous: without the credential.
        """
        return self.answer(method, request, repeat=repeat, deadline=deadline, anonymous=anonymous)[0]

    def answer(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Asked, Answer]",
        request: "Asked",
        *,
        repeat: Repeat,
        deadline: float = DEADLINE,
        anonymous: bool = False,
    ) -> "tuple[Answer, dict[str, str]]":
        """As `call`, with the headers of the answer by their names in lower case."""
        # Before the breaker: to renew a session is a call of its own.
        metadata = () if anonymous else self.metadata

        def attempt() -> "tuple[Answer, grpc.Call]":
            try:
                return method.with_call(request, metadata=metadata, timeout=deadline)
            except grpc.RpcError as error:
                raise errors.from_rpc(error) from None

        answer, call = self.repeated(attempt, repeat)
        return answer, {name: str(value) for name, value in call.initial_metadata() or ()}

    def repeated(self, attempt: "Callable[[], Answer]", repeat: Repeat) -> "Answer":
        """What `attempt` returns, made again as `call` would. It raises StrongroomError."""
        with self._breaker.guarding():
            return self._retries.run(attempt, repeat)

    def result(self, call: Any) -> Any:
        """Waits for the answer of a call that was begun."""
        try:
            return call.result()
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from None

    def begin(self, method: Any, request: Any) -> Any:
        """Begins a call with a stream of answers. Whoever reads it makes it again (strongroom/persevere.py)."""
        return method(request, metadata=self.metadata, timeout=LONG_DEADLINE)

    def answers(self, call: Any) -> Iterator[Any]:
        """The answers of a call that was begun; leaving off ends the call."""
        try:
            yield from call
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from None
        finally:
            call.cancel()

    def close(self) -> None:
        self.route.close()
        self.channel.close()


def _channel(url: str, ca_file: Path | str | None) -> grpc.Channel:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        # Neither a host nor a port can be made out.
        parts, port = urlsplit(""), 0
    if "@" in url:
        # Not repeated: in front of the @ a password may stand.
        message = "The address holds a user or a password. Give the key apart."
        raise errors.InvalidArgument(message, reason="URL_INVALID")
    host = parts.hostname or ""
    beyond = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or not port or beyond:
        raise errors.InvalidArgument(
            f"{url!r} is no address of a Strongroom. It looks like http://127.0.0.1:8080.", reason="URL_INVALID"
        )
    host = f"[{host}]" if ":" in host else host
    if parts.scheme == "https":
        return grpc.secure_channel(f"{host}:{port}", channel_credentials(ca_file), _OPTIONS)
    return grpc.insecure_channel(f"{host}:{port}", _OPTIONS)


def check_access_code(code: str) -> None:
    """Raises InvalidArgument, which does not repeat it, for a code that no header can carry."""
    if not (code.isascii() and code.isprintable() and code == code.strip() and 0 < len(code) <= _MAX_CODE):
        message = (
            f"An access code travels in a header: choose one of 1 to {_MAX_CODE} printable ASCII characters, without a "
            "space at its ends."
        )
        raise errors.InvalidArgument(message, reason="ACCESS_CODE_INVALID")


def header_value(value: str, what: str) -> str:
    """The value as a header carries it. Raises Unauthenticated, which does not repeat it."""
    stripped = value.strip()
    if not (stripped.isascii() and stripped.isprintable()):
        message = f"The {what} has characters that no {what} has. Copy it again."
        raise errors.Unauthenticated(message, reason="CREDENTIAL_INVALID")
    return stripped
