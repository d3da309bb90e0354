"""`AsyncClient` is as patient as `Client`, without keeping the other tasks of its loop waiting."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent import futures

import grpc
import pytest

from strongroom.aio.connection import AsyncConnection
from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import api_keys_pb2_grpc
from strongroom.breaker import FAILURES, Breaker
from strongroom.errors import CircuitOpen, InvalidArgument, RateLimited, Unauthenticated, Unavailable
from strongroom.retries import ATTEMPTS, AsyncRetries, Repeat
from strongroom.session import MemoryStore, Session, Tokens
from tests.test_client_retries import EXHAUSTED, UNAVAILABLE, Moody, refusal


class Asking:
    """A client of a Moody server. `waits` are the seconds it would have waited, each."""

    def __init__(self, url: str) -> None:
        self.waits: list[float] = []
        self.connection = AsyncConnection(url, api_key="sr_x", retries=AsyncRetries(sleep=self._sleep))
        self._stub = api_keys_pb2_grpc.ApiKeyServiceStub(self.connection.channel)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def get(self, repeat: Repeat = Repeat.SAFE, deadline: float = 30) -> pb.ApiKey:
        request = pb.GetApiKeyRequest(id="1")
        return await self.connection.call(self._stub.GetApiKey, request, repeat=repeat, deadline=deadline)

    async def extend(self) -> pb.ApiKey:
        return await self.connection.call(self._stub.ExtendApiKey, pb.ExtendApiKeyRequest(id="1", days=1))


def ask(moody: Moody, using: Callable[[Asking], Awaitable[None]]) -> list[float]:
    """Returns the waits."""

    async def run(url: str) -> list[float]:
        client = Asking(url)
        try:
            await using(client)
        finally:
            await client.connection.close()
        return client.waits

    server = grpc.server(futures.ThreadPoolExecutor(2))
    api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server(moody, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        return asyncio.run(run(f"http://127.0.0.1:{port}"))
    finally:
        server.stop(None).wait()


@pytest.mark.row("S3.7")
def test_a_limit_is_waited_for_as_long_as_the_server_says() -> None:
    async def using(client: Asking) -> None:
        assert (await client.extend()).name == "made"

    moody = Moody([refusal(EXHAUSTED, "RATE_LIMITED", retry_after=7), refusal(EXHAUSTED, "RATE_LIMITED", 2)])
    waits = ask(moody, using)
    assert moody.calls == ["ExtendApiKey"] * 3
    assert 7 <= waits[0] <= 7.4
    assert 2 <= waits[1] <= 2.8


@pytest.mark.row("S3.7")
def test_what_can_be_repeated_is_and_nothing_else() -> None:
    async def using(client: Asking) -> None:
        with pytest.raises(Unavailable):
            await client.get()
        moody.refusals[:] = [refusal(UNAVAILABLE)]
        with pytest.raises(Unavailable):
            await client.extend()
        moody.refusals[:] = [refusal(grpc.StatusCode.INVALID_ARGUMENT, "SCOPE_INVALID")]
        with pytest.raises(InvalidArgument) as caught:
            await client.get()
        assert caught.value.reason == "SCOPE_INVALID"
        moody.refusals[:] = [refusal(EXHAUSTED, "QUOTA_EXCEEDED", retry_after=3600)]
        with pytest.raises(RateLimited) as limited:
            await client.get()
        assert limited.value.retry_after == 3600

    moody = Moody([refusal(UNAVAILABLE)] * ATTEMPTS)
    waits = ask(moody, using)
    assert moody.calls == ["GetApiKey"] * ATTEMPTS + ["ExtendApiKey", "GetApiKey", "GetApiKey"]
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.row("S3.7")
def test_tasks_that_wait_do_not_take_each_others_turns() -> None:
    """Retries keep their state by thread, and all tasks of a loop share one."""

    async def using(client: Asking) -> None:
        made = await asyncio.gather(*(client.get() for _ in range(8)))
        assert {one.name for one in made} == {"made"}

    moody = Moody([refusal(UNAVAILABLE)] * 6)
    assert len(ask(moody, using)) == 6
    assert len(moody.calls) == 14


@pytest.mark.row("S3.7")
def test_a_server_that_nobody_finds_is_not_called_any_more_for_a_while() -> None:
    async def run() -> float:
        breaker = Breaker(rest=60)
        connection = AsyncConnection("http://127.0.0.1:9", breaker=breaker)
        stub = api_keys_pb2_grpc.ApiKeyServiceStub(connection.channel)
        for _ in range(FAILURES):
            with pytest.raises(Unavailable):
                await connection.call(stub.GetApiKey, pb.GetApiKeyRequest(id="1"), repeat=Repeat.NEVER)
        begun = time.monotonic()
        with pytest.raises(CircuitOpen) as caught:
            await connection.call(stub.GetApiKey, pb.GetApiKeyRequest(id="1"))
        assert caught.value.retry_after == 60
        # What runs in threads is kept from it by the same one.
        with pytest.raises(CircuitOpen):
            await connection.in_thread(lambda: connection.blocking.repeated(lambda: None, Repeat.SAFE))
        await connection.close()
        return time.monotonic() - begun

    assert asyncio.run(run()) < 1


@pytest.mark.row("S3.7")
def test_every_call_has_a_deadline() -> None:
    class Slow(Moody):
        def GetApiKey(self, request: pb.GetApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
            time.sleep(0.5)
            return pb.ApiKey(name="late")

    async def using(client: Asking) -> None:
        with pytest.raises(Unavailable) as caught:
            await client.get(deadline=0.1)
        assert caught.value.code == "DEADLINE_EXCEEDED"

    assert ask(Slow([]), using) == []


def test_a_session_is_renewed_once_while_the_loop_goes_on() -> None:
    exchanged: list[str] = []

    def exchange(refresh_token: str) -> Tokens:
        exchanged.append(refresh_token)
        time.sleep(0.2)
        return Tokens.issued("new", "refresh-2", 600, 86400, "user:ada", time.time())

    async def run() -> None:
        connection = AsyncConnection("http://127.0.0.1:9")
        store = MemoryStore()
        store.save(Tokens.issued("old", "refresh-1", 600, 86400, "user:ada", time.time() - 590))
        connection.blocking.act_as(Session(store, exchange))
        asked = [asyncio.ensure_future(connection.headers()) for _ in range(5)]
        turns = 0
        while not all(one.done() for one in asked):
            await asyncio.sleep(0.01)
            turns += 1
        assert {(await one)["Authorization"] for one in asked} == {"Bearer new"}
        assert turns > 5
        store.save(None)
        connection.blocking.act_as(Session(store, exchange))
        with pytest.raises(Unauthenticated):
            await connection.headers()
        await connection.close()

    asyncio.run(run())
    assert exchanged == ["refresh-1"]
