"""Who writes at the same time, to two replicas over one database: every version has one winner.

On PostgreSQL too, whose locks differ.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Barrier

import grpc
import pytest

from tests.secrets_installation import Caller, Client, Installation

WRITERS = 8


@dataclass
class Replicas:
    """Two services over one database."""

    installation: Installation
    clients: list[Client]
    callers: list[Caller]

    def together(self, write: Callable[[int], object]) -> Counter[str]:
        """Lets all writers start at once; how often each gRPC code came back."""
        start = Barrier(WRITERS)

        def run(number: int) -> str:
            start.wait()
            try:
                write(number)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        with ThreadPoolExecutor(WRITERS) as pool:
            return Counter(pool.map(run, range(WRITERS)))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def replicas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    installation = Installation(tmp_path_factory.mktemp("replicas"), url)
    with installation.serving() as one, installation.serving() as two:
        addresses = (one, two)
        yield Replicas(
            installation,
            [installation.client(address) for address in addresses],
            [installation.caller("models", address) for address in addresses],
        )


def test_one_creates_a_secret(replicas: Replicas) -> None:
    clients = replicas.clients
    codes = replicas.together(lambda number: clients[number % 2]("CreateSecret", name="create", data={"by": number}))
    assert codes == {"OK": 1, "ALREADY_EXISTS": WRITERS - 1}


def test_one_writes_over_each_version(replicas: Replicas) -> None:
    clients = replicas.clients
    for expected in range(3):
        codes = replicas.together(
            lambda number, expected=expected: clients[number % 2](
                "UpdateSecret", name="cas", data={"by": number}, expected_version=expected
            )
        )
        assert codes == {"OK": 1, "ABORTED": WRITERS - 1}
    assert clients[0]("GetSecret", name="cas").version == 3


def test_no_unconditional_write_is_lost(replicas: Replicas) -> None:
    clients = replicas.clients

    def write(number: int) -> None:
        clients[number % 2]("UpdateSecret", name="upsert", data={"by": number}, allow_missing=True)

    assert replicas.together(write) == {"OK": WRITERS}
    values = [clients[0].value("upsert", version=version)["by"] for version in range(1, WRITERS + 1)]
    assert sorted(values) == list(range(WRITERS))


def test_a_reader_sees_a_secret_or_none_while_it_comes_and_goes(replicas: Replicas) -> None:
    clients = replicas.clients

    def come_and_go(number: int) -> None:
        client = clients[number % 2]
        for _ in range(10):
            if number < 2:
                client("UpdateSecret", name="churn", data={"by": number}, allow_missing=True)
                _unless_missing(client, "DestroySecret")
            else:
                _unless_missing(client, "GetSecret")

    assert replicas.together(come_and_go) == {"OK": WRITERS}


def _unless_missing(client: Client, method: str) -> None:
    try:
        client(method, name="churn")
    except grpc.RpcError as error:
        if error.details() != "There is no secret 'churn'.":
            raise


def test_all_who_create_a_kek_get_the_same(replicas: Replicas) -> None:
    callers = replicas.callers
    codes = replicas.together(lambda number: callers[number % 2]("CreateKek", kek_id="race"))
    assert codes == {"OK": WRITERS}
    [key] = callers[0].generate("race", "c")
    assert callers[1].unwrap(key.key_id, "c") == key.key


def test_versions_prefixes_and_deletion(replicas: Replicas) -> None:
    client, other = replicas.clients
    for name in ("a-b", "a/b", "B", "a", "a_b", "A/b"):
        client("CreateSecret", name=f"order/{name}", data={"n": 3})
    # Byte by byte, whatever the locale of the database.
    assert other.names(prefix="order/") == [f"order/{name}" for name in ("A/b", "B", "a", "a-b", "a/b", "a_b")]
    assert other.names(prefix="order/a_") == ["order/a_b"]
    assert other("DestroySecret", name="order/a").destroyed_versions == 1
    assert client.refusal("GetSecret", name="order/a") == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    assert client.refusal("GetSecret", name="order/B", version=2**32 - 1)[1] == "SECRET_VERSION_NOT_FOUND"


def test_a_slow_reader_delays_neither_deletion_nor_writers(tmp_path) -> None:
    installation = Installation(tmp_path)
    with installation.serving() as address:
        client = installation.client(address)
        client("CreateSecret", name="doomed", data={})
        [(key_id,)] = installation.sql("SELECT key_id FROM secrets")
        with closing(sqlite3.connect(installation.database, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM secrets").fetchall()
            client("CreateSecret", name="after", data={})
            started = time.monotonic()
            client("DestroySecret", name="doomed")
            client("CreateSecret", name="other", data={})
            assert time.monotonic() - started < 3
        # What the reader kept in the write-ahead log goes with the next check of the service's health.
        deadline = time.monotonic() + 60
        while any(key_id.encode() in content for _, content in installation.files()):
            assert time.monotonic() < deadline, "the deleted key still stands in a file"
            time.sleep(0.1)
