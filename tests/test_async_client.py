"""`AsyncClient` does what `Client` does, in an event loop: through the gateway, against the running stack."""

import ast
import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from strongroom import AsyncClient, Client
from strongroom.aio.connection import AsyncConnection
from strongroom.errors import AlreadyExists, Conflict, NotFound, PermissionDenied, StrongroomError, Unauthenticated
from strongroom.push import PushProgress
from tests.stack import Stack

REPOSITORY = Path(__file__).resolve().parent.parent
Using = Callable[[AsyncClient], Awaitable[None]]


def use(stack: Stack, using: Using, **arguments: str) -> None:
    async def run() -> None:
        async with AsyncClient(stack.url, **(arguments or {"api_key": stack.admin_key})) as client:
            await using(client)

    asyncio.run(run())


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.row("S3.7")
def test_both_clients_have_the_same_parts_methods_and_parameters() -> None:
    async def compare() -> None:
        with Client() as one:
            async with AsyncClient() as other:
                assert public(one) == public(other)
                for part in public(one) - {"close", "headers"}:
                    methods = public(getattr(one, part))
                    assert methods == public(getattr(other, part)), part
                    for name in methods:
                        theirs, ours = (getattr(getattr(client, part), name) for client in (one, other))
                        assert [*inspect.signature(theirs).parameters] == [*inspect.signature(ours).parameters], name

    asyncio.run(compare())


@pytest.mark.row("S3.7")
def test_there_is_one_definition_of_each_call(tmp_path: Path) -> None:
    """What is committed is what the definitions for threads become."""
    subprocess.run([sys.executable, REPOSITORY / "clients/make_async.py", "--root", tmp_path], check=True, timeout=60)
    made = {path.name: path.read_text() for path in (tmp_path / "strongroom" / "aio").glob("*.py")}
    kept = {path.name: path.read_text() for path in (REPOSITORY / "strongroom" / "aio").glob("*.py")}
    kept.pop("connection.py")
    assert made == kept, "make clients"
    for name, text in made.items():
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        assert {one.name for one in functions} <= {"__init__", "at"}, name


def test_without_an_event_loop_there_is_no_client() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncClient()


def test_models_go_up_and_down(stack: Stack, tmp_path: Path) -> None:
    source = tmp_path / "async.bin"
    source.write_bytes(bytes(range(256)) * 20_000)
    told: list[tuple[int, int]] = []

    def tell(progress: PushProgress) -> None:
        told.append((threading.get_ident(), progress.total))

    async def using(client: AsyncClient) -> None:
        planned = await client.models.plan_push("async-model", source)
        assert planned.total == source.stat().st_size
        pushed = await client.models.push("async-model", source, version="v1", progress=tell)
        assert pushed.version.version == "v1"
        with pytest.raises(AlreadyExists):
            await client.models.push("async-model", source.parent / "other.bin", version="v1")
        await client.aliases.set("async-model", "champion", "v1")
        pulled = await client.models.pull("async-model", tmp_path / "back.bin", alias="champion")
        assert pulled.paths == [tmp_path / "back.bin"]
        assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()
        assert await client.models.read("async-model", "async.bin", offset=254, length=4) == b"\xfe\xff\x00\x01"
        assert [one.version async for one in client.models.versions("async-model")] == ["v1"]
        assert "async-model" in [one.name async for one in client.models.list()]
        assert (await client.models.verify("async-model")).SerializeToString()
        await client.catalog.update_model("async-model", card="kept", tags={"by": "async"})
        entry = await client.catalog.update_model("async-model", tags={"more": "1"}, remove_tags=iter(["by"]))
        assert (entry.card, dict(entry.tags)) == ("kept", {"more": "1"})
        await client.aliases.delete("async-model", "champion")
        await client.models.delete("async-model", "v1")
        with pytest.raises(NotFound) as caught:
            await client.models.show("async-model", "v1")
        assert caught.value.reason

    (tmp_path / "other.bin").write_bytes(b"other")
    use(stack, using)
    # Where whoever awaits is, so that it needs no locks.
    assert {thread for thread, _ in told} == {threading.get_ident()}
    assert {total for _, total in told} == {source.stat().st_size}


def test_a_protected_version_needs_its_code(stack: Stack, tmp_path: Path) -> None:
    source = tmp_path / "guarded.bin"
    source.write_bytes(b"guarded")

    async def using(client: AsyncClient) -> None:
        await client.models.push("async-guarded", source, version="v1", access_code="open sesame")
        shown = await client.models.show("async-guarded", "v1", access_code="open sesame")
        assert [file.path for file in shown.files] == ["guarded.bin"]
        assert not (await client.models.show("async-guarded", "v1")).files
        with pytest.raises(PermissionDenied) as caught:
            await client.models.pull("async-guarded", tmp_path / "stolen.bin")
        assert "sesame" not in str(caught.value)

    use(stack, using)


def test_secrets_keys_users_and_what_is_told_of_them(stack: Stack) -> None:
    async def using(client: AsyncClient) -> None:
        await client.secrets.create("async/db", {"password": "hush", "port": 5432, "raw": b"\x00"})
        await client.secrets.patch("async/db", {"user": "ada"}, remove=["raw"])
        assert await client.secrets.value("async/db") == {"password": "hush", "port": 5432, "user": "ada"}
        assert [one.version for one in await client.secrets.history("async/db")] == [2, 1]
        assert [one.name for one in (await client.secrets.folder("async/")).secrets] == ["async/db"]
        with pytest.raises(Conflict):
            await client.secrets.put("async/db", {}, expected_version=1)
        made = await client.keys.create("async-reader", permission_set="read_only")
        assert "sr_" not in repr(made)
        async with AsyncClient(stack.url, api_key=made.key) as reader:
            assert (await reader.tokens.caller()).name == "async-reader"
            assert await reader.headers() == {"X-API-Key": made.key}
            with pytest.raises(PermissionDenied):
                await reader.keys.create("more", permission_set="full_access")
            await client.keys.revoke(made.id)
            with pytest.raises(Unauthenticated):
                await reader.tokens.caller()
        assert made.id in [key.id async for key in client.keys.list()]
        assert b"".join([piece async for piece in client.usage.export()]).startswith(b"day,")
        explained = await client.access.explain("set:read_only", "models.write", "managers/default/models/x")
        assert not explained.allowed
        assert (await client.admin.health()).status == "healthy"
        manager = await client.managers.create("classification")
        assert (await client.managers.get(manager)).manager_id == manager
        await client.managers.delete(manager)

    use(stack, using)


def test_a_user_signs_in_and_calls_at_the_same_time_are_the_users(stack: Stack) -> None:
    password = "async horse battery staple"

    async def using(client: AsyncClient) -> None:
        made = await client.users.create("async@example.org", role="viewer", password=password)
        async with AsyncClient(stack.url) as ada:
            signed = await ada.sessions.sign_in("async@example.org", password)
            assert signed.principal == f"user:{made.id}"
            callers = await asyncio.gather(*(ada.tokens.caller() for _ in range(20)))
            assert {one.principal for one in callers} == {signed.principal}
            assert (await ada.headers())["Authorization"].startswith("Bearer ")
            await ada.sessions.sign_out()
            with pytest.raises(Unauthenticated):
                await ada.tokens.caller()

    use(stack, using)


def test_the_loop_goes_on_while_weights_travel(stack: Stack, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(b"weights " * (4 << 20))
    longest = 0.0

    async def using(client: AsyncClient) -> None:
        nonlocal longest
        pushing = asyncio.ensure_future(client.models.push("async-large", source, version="v1"))
        loop = asyncio.get_running_loop()
        while not pushing.done():
            begun = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - begun)
        await pushing

    use(stack, using)
    assert longest < 1, "somebody else of this loop waited"


@pytest.mark.parametrize("access_code", [None, "open sesame"])
def test_a_cancelled_push_ends_and_can_be_made_again(stack: Stack, tmp_path: Path, access_code: str | None) -> None:
    model = f"async-cancelled-{access_code is None}"
    source = tmp_path / "cancelled.bin"
    with source.open("wb") as file:
        for number in range(48):
            file.write(number.to_bytes(4, "big") * (1 << 18))

    async def using(client: AsyncClient) -> None:
        def tell(progress: PushProgress) -> None:
            if progress.done:
                pushing.cancel()

        pushing = asyncio.ensure_future(client.models.push(model, source, access_code=access_code, progress=tell))
        with pytest.raises(asyncio.CancelledError):
            await pushing
        deadline = time.monotonic() + 30
        while left := [thread for thread in threading.enumerate() if thread.name.startswith(("strongroom", "push"))]:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.01)
        with pytest.raises(NotFound):
            await client.models.show(model)
        pushed = await client.models.push(model, source, version="v1", access_code=access_code)
        assert pushed.version.version == "v1"

    use(stack, using)


def test_a_cancelled_call_leaves_the_client_as_it_was(stack: Stack) -> None:
    async def using(client: AsyncClient) -> None:
        for _ in range(10):
            call = asyncio.ensure_future(client.tokens.caller())
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert (await client.tokens.caller()).principal

    use(stack, using)


def test_a_bad_address_and_a_bad_key_are_told_without_repeating_them() -> None:
    async def make(url: str, api_key: str) -> None:
        AsyncConnection(url, api_key=api_key)

    for url, key in (("http://ada:hush@127.0.0.1:1", "sr_x"), ("http://127.0.0.1:1", "hush\n\x00hush")):
        with pytest.raises(StrongroomError) as caught:
            asyncio.run(make(url, key))
        assert "hush" not in str(caught.value)
