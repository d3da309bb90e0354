"""The channel to a Strongroom for an event loop: all else is as in strongroom/connection.py."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from strongroom import errors
from strongroom.breaker import Breaker
from strongroom.connection import DEADLINE, DEFAULT_URL, LONG_DEADLINE, Connection, http_headers
from strongroom.credential import Metadata, presented
from strongroom.retries import AsyncRetries, Repeat

T = TypeVar("T")

if TYPE_CHECKING:
    Asked = TypeVar("Asked")
    Answer = TypeVar("Answer")


class AsyncConnection:
    """A channel that presents a credential with every call and raises `StrongroomError`. Belongs to the event loop that
    runs when it is made; RuntimeError without one.

    Args:
        url, api_key, token, direct, ca_file: as of `Connection`.
        retries: repeats calls.
        breaker: keeps calls from a server that is not there.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        token: str | None = None,
        retries: AsyncRetries | None = None,
        breaker: Breaker | None = None,
        direct: bool = True,
        ca_file: Path | str | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._retries = retries or AsyncRetries()
        self._breaker = breaker or Breaker()
        # For what runs in threads. Both have one credential and one breaker.
        self.blocking = Connection(
            url, api_key=api_key, token=token, breaker=self._breaker, direct=direct, ca_file=ca_file
        )
        self.channel = self.blocking.address.aio_channel()
        self._presented: Metadata = ()

    @contextmanager
    def presenting(self, access_code: str | None) -> "Iterator[AsyncConnection]":
        """This connection, whose calls also present the access code of a protected version. Raises InvalidArgument."""
        if access_code is None:
            yield self
            return
        other = copy.copy(self)
        other._presented = presented(access_code)
        yield other

    async def headers(self) -> dict[str, str]:
        """The credential as HTTP headers. Raises Unauthenticated if a session has ended."""
        return http_headers(await self._credential())

    async def call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Asked, Answer]",
        request: "Asked",
        *,
        repeat: Repeat = Repeat.REFUSED,
        deadline: float = DEADLINE,
        anonymous: bool = False,
    ) -> "Answer":
        """Calls a method with one answer; the arguments are those of `Connection.call`."""
        return (await self.answer(method, request, repeat=repeat, deadline=deadline, anonymous=anonymous))[0]

    async def answer(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Asked, Answer]",
        request: "Asked",
        *,
        repeat: Repeat,
        deadline: float = DEADLINE,
        anonymous: bool = False,
    ) -> "tuple[Answer, dict[str, str]]":
        """As `call`, with the headers of the answer by their names in lower case."""
        # Before the breaker: to renew a session is a call of its own.
        metadata = () if anonymous else await self._metadata()

        async def attempt() -> "tuple[Answer, dict[str, str]]":
            call = method(request, metadata=metadata, timeout=deadline)
            try:
                answer = await call
                return answer, {name: str(value) for name, value in await call.initial_metadata()}
            except grpc.RpcError as error:
                raise errors.from_rpc(error) from None

        with self._breaker.guarding():
            return await self._retries.run(attempt, repeat)

    async def begin(self, method: Any, request: Any) -> Any:
        """Begins a call with a stream of answers, which is made once."""
        return method(request, metadata=await self._metadata(), timeout=LONG_DEADLINE)

    async def answers(self, call: Any) -> AsyncIterator[Any]:
        """The answers of a call that was begun; leaving off ends the call."""
        try:
            async for answer in call:
                yield answer
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from None
        finally:
            call.cancel()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` returns. Cancelled, it goes on to its end, and nobody waits for it."""
        return await _begun(work)

    async def transferred(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, which has a connection of its own. Cancelled, that is closed, and with it ends the work:
        when CancelledError is raised, nothing goes on any more."""
        apart = self.blocking.apart()
        running = _begun(lambda: work(apart))
        try:
            return await asyncio.shield(running)
        finally:
            apart.close()
            if not running.done():
                await asyncio.wait([running])

    def here(self, report: Callable[[T], None]) -> Callable[[T], None]:
        """Calls `report` in the event loop, also from a thread."""

        def tell(said: T) -> None:
            self._loop.call_soon_threadsafe(report, said)

        return tell

    async def close(self) -> None:
        self.blocking.close()
        await self.channel.close()

    async def _metadata(self) -> Metadata:
        return (*await self._credential(), *self._presented)

    async def _credential(self) -> Metadata:
        held = self.blocking.credential.held()
        return held if held is not None else await self.in_thread(self.blocking.credential.metadata)


def _begun(work: Callable[[], T]) -> "asyncio.Future[T]":
    """In a thread of its own: in the loop's pool a token's renewal would wait until other tasks' transfers end."""
    thread = ThreadPoolExecutor(1, "strongroom")
    try:
        return asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)
