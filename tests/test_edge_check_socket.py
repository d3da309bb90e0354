"""Auth's socket for the gateway: it says what the check over gRPC says."""

import http.client
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.auth import check_socket
from services.auth.admission import Admitted, Attempt
from tests.auth_installation import BOOTSTRAP_KEY, LIST_MODELS, Auth, Installation, installation

REST = "/api/v1/managers/default/models"
KEY = {"x-api-key": BOOTSTRAP_KEY}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("check")) as made:
        yield made


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # a short name: unix sockets take no long ones
        yield Path(folder) / "check.sock"


@pytest.fixture(scope="module")
def auth(installed: Installation, path: Path) -> Iterator[Auth]:
    with installed.auth(check_socket=path) as running:
        yield running
    assert not path.exists()


class Gateway:
    """One connection, as Envoy keeps it."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, headers: dict[str, str], path: str = REST, method: str = LIST_MODELS) -> http.client.HTTPResponse:
        self.send(headers, path, method)
        return self.receive()

    def send(self, headers: dict[str, str], path: str = REST, method: str = LIST_MODELS) -> None:
        said = {"host": "auth", "x-strongroom-method": method, "content-length": "0"} | headers
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())

    def receive(self) -> http.client.HTTPResponse:
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        return answer


@pytest.fixture
def gateway(auth: Auth, path: Path) -> Iterator[Gateway]:
    with Gateway(path) as connected:
        yield connected


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        (KEY, REST),
        ({"x-api-key": "bad"}, REST),
        ({"x-api-key": "schl\u00fcssel \u2603"}, REST),
        ({}, REST),
        ({}, "/api-keys"),
        ({"authorization": "Bearer bad"}, REST),
        ({"x-api-key": BOOTSTRAP_KEY, "authorization": "Bearer bad"}, REST),
        ({"x-strongroom-several-credentials": "true"}, REST),
    ],
)
@pytest.mark.parametrize("method", [LIST_MODELS, "/strongroom.auth.v1.InfoService/GetInfo", "/strongroom.x.v1.X/Y"])
def test_it_says_what_the_check_over_grpc_says(
    auth: Auth, gateway: Gateway, headers: dict[str, str], rest: str, method: str
) -> None:
    answer, other = gateway.ask(headers, rest, method), auth.check(method, headers, rest)
    if other.HasField("denied_response"):
        denied = other.denied_response
        assert (answer.status, answer.text) == (denied.status.code, denied.body)  # type: ignore[attr-defined]
        assert answer.getheader("x-strongroom-identity") is None
        return
    assert answer.status == 200
    assert answer.getheader("x-envoy-auth-headers-to-remove") == "x-api-key,authorization"
    told = {item.header.key: item.header.value for item in other.ok_response.headers}
    assert answer.getheader("x-strongroom-identity") == told.get("x-strongroom-identity")
    counted = dict(other.dynamic_metadata).get("x-strongroom-credential")
    assert answer.getheader("x-strongroom-credential") == counted


def test_a_connection_answers_one_question_after_the_other(gateway: Gateway) -> None:
    for _ in range(3):
        assert gateway.ask(KEY).status == 200
        assert gateway.ask({}).status == 401


def test_no_credential_is_left_from_the_question_before(gateway: Gateway) -> None:
    gateway.send(KEY)
    gateway.send({})
    received = b""
    while received.count(b"HTTP/1.1 ") < 2 or not received.endswith(b"X-API-Key"):
        received += gateway.socket.recv(65_536)
    first, second = received.split(b"HTTP/1.1 ")[1:]
    assert (first[:3], second[:3]) == (b"200", b"401")


def test_many_ask_at_a_time(auth: Auth, path: Path) -> None:
    gateways = [Gateway(path) for _ in range(40)]
    for gateway in gateways:
        gateway.send(KEY)
    assert {gateway.receive().status for gateway in gateways} == {200}
    for gateway in gateways:
        gateway.socket.close()


def test_nonsense_ends_its_connection_alone(path: Path, gateway: Gateway) -> None:
    with Gateway(path) as other:
        other.socket.sendall(b"\x00\x01 nonsense\r\n\r\n")
        assert other.socket.recv(100) == b""
    assert gateway.ask(KEY).status == 200


def test_only_its_owner_may_open_it(auth: Auth, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_subject_of_another_issuer_makes_no_header() -> None:
    admitted = Admitted("token", "oidc:https://issuer.example#a\r\nx-strongroom-identity: forged\u2603")
    answer = check_socket._response(admitted, Attempt("/m", authorization="Bearer x"))
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line for line in lines if line.startswith(b"x-strongroom-identity:")] == [b"x-strongroom-identity: token"]


def test_whoever_needs_no_credential_is_counted_by_address() -> None:
    """In open mode; one client's use is not another's."""
    attempt = Attempt("/m", address="2001:db8::1")
    answer = check_socket._response(Admitted("token", "anonymous"), attempt)
    assert b"x-strongroom-credential: address:2001:db8::/64\r\n" in answer
