"""Two replicas of each service behind the gateway, on PostgreSQL: each is killed and rolled in turn, under traffic."""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc
import pytest
import sqlalchemy as sa

from services.shared.status import code_of, foreseen
from strongroom import Client, errors
from strongroom.addresses import parse, target
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.faults.installation import SERVICES, Installation
from tests.faults.rest import Failed, Rest
from tests.postgresql import Server
from tests.stack import STRONGROOM

_WEIGHTS = os.urandom(600_000)
# What changes nothing, or what the client sends again: no failure of one replica shows there.
ALWAYS = ("read over REST", "read over gRPC", "push and pull")
# What a replica may have begun when it dies is asked of no other: the caller hears that nobody knows.
ONCE = ("write", "send a file", "make and revoke a key")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, postgresql_server: Server) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("replicas")
    url = postgresql_server.create_database()
    with Installation(folder, url, with_lines=False, STRONGROOM_NOTICE_SECONDS="2") as running:
        yield running


class Traffic:
    """Callers who do the same over and over, and never again what failed. What failed, by what they do."""

    def __init__(self, installation: Installation) -> None:
        self.done: dict[str, int] = {}
        self.failed: dict[str, list[Exception]] = {}
        self._installation = installation
        self._stop = threading.Event()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """While the block runs; before it begins, everybody has succeeded once."""
        with ExitStack() as clients, ThreadPoolExecutor(8) as threads:
            acts = _acts(self._installation, clients)
            self.done = dict.fromkeys(acts, 0)
            self.failed = {name: [] for name in acts}
            running = [threads.submit(self._run, name, act) for name, act in acts.items()]
            try:
                self.await_more()
                yield
                self.await_more()
            finally:
                self._stop.set()
            for each in running:
                each.result()

    def await_more(self) -> None:
        """Returns when everybody has succeeded once more."""
        before, deadline = dict(self.done), time.monotonic() + 90
        while any(self.done[name] == count for name, count in before.items()):
            assert time.monotonic() < deadline, f"{before} {self.done} {self.reasons()}\n{self._installation.report()}"
            time.sleep(0.01)

    def reasons(self) -> dict[str, Counter[str]]:
        """What failed, and how often."""
        return {name: Counter(map(_reason, found)) for name, found in self.failed.items() if found}

    def _run(self, name: str, act: Callable[[], None]) -> None:
        while not self._stop.wait(0.01):
            try:
                act()
            except (Failed, grpc.RpcError) as error:
                self.failed[name].append(error)
            else:
                self.done[name] += 1


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, Failed) else errors.from_rpc(error).reason


def _acts(installation: Installation, clients: ExitStack) -> dict[str, Callable[[], None]]:
    url, key = installation.url, installation.admin_key
    client = clients.enter_context(Client(url, api_key=key))
    channel = clients.enter_context(grpc.insecure_channel(installation.target, [("grpc.enable_retries", 0)]))
    stub = secrets_pb2_grpc.SecretServiceStub(channel)
    mark, folder = f"t{time.monotonic_ns()}", installation.folder
    client.secrets.put(f"{mark}/read", {"value": mark})
    client.secrets.put(f"{mark}/written", {"value": 0})
    (folder / "weights.bin").write_bytes(_WEIGHTS)
    numbers = {name: itertools.count(1) for name in (*ALWAYS, *ONCE)}
    callers = {name: Rest(url, key) for name in (*ALWAYS, *ONCE)}

    def read_rest() -> None:
        assert callers["read over REST"].call("GET", f"/api/v1/secrets/{mark}/read")["data"] == {"value": mark}

    def read_grpc() -> None:
        request = secrets_pb2.GetSecretRequest(name=f"{mark}/read")
        assert stub.GetSecret(request, metadata=[("x-api-key", key)], timeout=15).data["value"] == mark

    def write() -> None:
        data = {"value": next(numbers["write"])}
        callers["write"].call("PUT", f"/api/v1/secrets/{mark}/written", {"data": data})

    def send_file() -> None:
        name = f"/api/v1/managers/default/models/{mark}/versions/f{next(numbers['send a file'])}/files/w"
        callers["send a file"].call("PUT", name, _WEIGHTS[:100_000])
        assert callers["send a file"].call("GET", name) == _WEIGHTS[:100_000]

    def push() -> None:
        version = f"p{next(numbers['push and pull'])}"
        client.models.push(mark, folder / "weights.bin", version=version)
        client.models.pull(mark, folder / "pulled.bin", version=version)
        assert (folder / "pulled.bin").read_bytes() == _WEIGHTS

    def make_key() -> None:
        rest, name = callers["make and revoke a key"], f"{mark}-{next(numbers['make and revoke a key'])}"
        made = rest.call("POST", "/api-keys", {"name": name, "permission_set": "full_access"})
        own = Rest(url, made["key"])
        assert own.call("GET", f"/api/v1/secrets/{mark}/read")["data"] == {"value": mark}
        rest.call("POST", f"/api-keys/{made['id']}/revoke", {})
        with pytest.raises(Failed, match="401"):
            own.call("GET", f"/api/v1/secrets/{mark}/read")
        own.close()

    return dict(zip((*ALWAYS, *ONCE), (read_rest, read_grpc, push, write, send_file, make_key), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_request_fails_while_replicas_are_rolled(installation: Installation) -> None:
    traffic = Traffic(installation)
    with traffic.flowing():
        for host in ("1", "2"):
            names = [f"{service}-{host}" for service in SERVICES]
            with ThreadPoolExecutor(len(names)) as threads:
                list(threads.map(lambda name: installation.end(name, signal.SIGTERM), names))
                list(threads.map(installation.start, names))
            traffic.await_more()
    assert traffic.reasons() == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_request_that_may_be_repeated_fails_while_replicas_are_killed(installation: Installation) -> None:
    traffic = Traffic(installation)
    with traffic.flowing():
        for name in installation.replicas:
            installation.end(name, signal.SIGKILL)
            traffic.await_more()
            installation.start(name)
            traffic.await_more()
    reasons = traffic.reasons()
    assert not reasons.keys() & set(ALWAYS), reasons
    for failed in reasons.values():
        # No more than were under way when one died.
        assert failed.keys() == {"UNAVAILABLE"}, reasons
        assert failed.total() <= len(installation.replicas), reasons


def test_a_database_that_is_away_is_an_error_that_passes() -> None:
    for error in (sa.exc.OperationalError("SELECT", {}, Exception()), sa.exc.TimeoutError()):
        assert (known := foreseen(error)) is not None
        assert (code_of(known).name, known.error_reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")
    # PostgreSQL ends the session of whoever stood still in a transaction.
    ended = sa.exc.InternalError("SELECT", {}, Exception(), connection_invalidated=True)
    assert (known := foreseen(ended)) is not None
    assert known.error_reason == "DEPENDENCY_UNAVAILABLE"
    assert foreseen(sa.exc.InternalError("SELECT", {}, Exception())) is None
    assert foreseen(sa.exc.IntegrityError("INSERT", {}, Exception())) is None


def test_addresses_are_one_or_several() -> None:
    assert [(a.host, a.port, a.version) for a in parse("127.0.0.1:1, [::1]:2,auth.internal:3")] == [
        ("127.0.0.1", 1, 4),
        ("::1", 2, 6),
        ("auth.internal", 3, 0),
    ]
    assert target("auth.internal:3") == "auth.internal:3"
    assert target("10.0.0.1:1,10.0.0.2:2") == "ipv4:10.0.0.1:1,10.0.0.2:2"
    assert target("[::1]:1,[::2]:2") == "ipv6:[::1]:1,[::2]:2"


@pytest.mark.parametrize("text", ["", "auth", "auth:", "auth:0", "auth:65536", ":1", "a:1,,b:2", "::1:5", "http://a:1"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address\. Write host:port"):
        parse(text)


@pytest.mark.parametrize("text", ["a:1,b:2", "10.0.0.1:1,[::1]:2", "10.0.0.1:1,b:2"])
def test_services_need_addresses_that_one_channel_can_have(text: str) -> None:
    with pytest.raises(ValueError, match="one name that resolves to every replica"):
        target(text)


def test_the_gateway_says_which_address_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    pid = os.posix_spawn(STRONGROOM, [str(STRONGROOM), "gateway", "--models-addr", "models"], dict(os.environ))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert capfd.readouterr().err == (
        "strongroom: STRONGROOM_MODELS_ADDR: 'models' is no address. "
        "Write host:port, and several with commas between them.\n"
    )
