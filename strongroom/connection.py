"""The channel to a Strongroom: credential, deadlines, retries, errors."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from strongroom import errors
from strongroom.address import Address
from strongroom.breaker import Breaker
from strongroom.credential import Credential, Metadata, TokenSource, presented
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

_HEADER_NAMES = {"x-api-key": "X-API-Key", "authorization": "Authorization"}


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
        self.address = Address.of(url, ca_file)
        self.channel = self.address.channel()
        self.url = url.rstrip("/")
        self.route = Route(self, direct=direct)
        self._routes = [self.route]
        self.credential = Credential(api_key, token)
        self.presented: Metadata = ()
        self._retries = retries or Retries()
        self._breaker = breaker or Breaker()
        self._direct = direct

    def act_as(self, source: TokenSource | None) -> None:
        """From now on calls carry the tokens of this; None for the credential of the beginning."""
        self.credential.act_as(source)

    @property
    def metadata(self) -> Metadata:
        """The credential, as a call carries it. Raises Unauthenticated if a session has ended."""
        return (*self.credential.metadata(), *self.presented)

    def headers(self) -> dict[str, str]:
        """The credential as HTTP headers. Raises Unauthenticated if a session has ended."""
        return http_headers(self.credential.metadata())

    @contextmanager
    def presenting(self, access_code: str | None) -> "Iterator[Connection]":
        """This connection, whose calls also present the access code of a protected version. Raises InvalidArgument."""
        if access_code is None:
            yield self
            return
        other = copy.copy(self)
        other.presented = presented(access_code)
        other.route = Route(other, direct=self._direct)
        self._routes.append(other.route)
        try:
            yield other
        finally:
            self._routes.remove(other.route)
            other.route.close()

    def apart(self) -> "Connection":
        """The same caller with channels of its own, which can be closed while others go on."""
        other = copy.copy(self)
        other.channel = self.address.channel()
        other.route = Route(other, direct=self._direct)
        other._routes = [other.route]
        return other

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
        for route in [*self._routes]:
            route.close()
        self.channel.close()


def http_headers(metadata: Metadata) -> dict[str, str]:
    """A credential as HTTP headers are written."""
    return {_HEADER_NAMES[name]: value for name, value in metadata}
