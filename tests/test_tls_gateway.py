"""TLS at the edge of an installation that `strongroom pki init` and `strongroom up` made, and the limits there."""

import http.client
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.api import httpbody_pb2

from strongroom import Client
from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc
from strongroom.certificates import read_pair
from strongroom.errors import PermissionDenied, ServerUnproven
from strongroom.local import backup
from strongroom.local.pki import Pki
from strongroom.models.v1 import files_pb2, files_pb2_grpc
from tests.stack import STRONGROOM, RunningStack, Stack, free_port, inherited
from tests.test_backup import LOCK, opened
from tests.test_gateway_rest import Answer, assert_problem
from tests.test_tls_files import write
from tests.test_tls_parts import refused

NAME = "strongroom.example.org"
IDLE_SECONDS = 3
HALF = "a" * 35_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data = tmp_path_factory.mktemp("tls") / "data"
    pki = Pki(data / "pki")
    pki.init([NAME, "localhost", "127.0.0.1"])
    running = RunningStack(data, ca_file=pki.authorities, STRONGROOM_IDLE_SECONDS=str(IDLE_SECONDS))
    yield running.start(seconds=240)
    running.stop()


@pytest.fixture(scope="module")
def pki(stack: Stack) -> Pki:
    return Pki(stack.data_dir / "pki", pause=lambda _: time.sleep(2.2))


@pytest.fixture(scope="module", autouse=True)
def silent(stack: Stack) -> Iterator[socket.socket]:
    """A connection on which nobody says anything, while the other tests run."""
    host, _, port = stack.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        yield opened


def trusting(pki: Pki) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pki.authorities))


@contextmanager
def connected(stack: Stack, context: ssl.SSLContext, name: str = "127.0.0.1") -> Iterator[http.client.HTTPConnection]:
    """A connection to somebody of this name."""
    host, _, port = stack.target.partition(":")
    connection = http.client.HTTPConnection(name, timeout=20)
    connection.sock = context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=name)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None) -> Answer:
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def shown(stack: Stack, pki: Pki) -> bytes:
    with connected(stack, trusting(pki)) as connection:
        found: Any = connection.sock
        return bytes(found.getpeercert(binary_form=True))


@pytest.fixture
def channel(stack: Stack, pki: Pki) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(pki.authorities.read_bytes())
    with grpc.secure_channel(stack.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield opened


@pytest.mark.row("S3.10")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(stack: Stack, pki: Pki, version: ssl.TLSVersion) -> None:
    context = trusting(pki)
    context.minimum_version = context.maximum_version = version
    with connected(stack, context) as connection:
        assert ask(connection, "/health").status == 200


@pytest.mark.row("S3.10")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_tls_is_refused(stack: Stack, pki: Pki, version: ssl.TLSVersion) -> None:
    context = trusting(pki)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"), connected(stack, context):
        pass


@pytest.mark.parametrize("suites", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"])
def test_suites_without_forward_secrecy_or_authentication_are_refused(stack: Stack, pki: Pki, suites: str) -> None:
    context = trusting(pki)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suites}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"), connected(stack, context):
        pass


@pytest.mark.row("S3.10")
def test_who_believes_another_authority_or_asks_for_another_name_sends_nothing(
    stack: Stack, pki: Pki, tmp_path: Path
) -> None:
    other = Pki(tmp_path / "other")
    other.init(["127.0.0.1"])
    with pytest.raises(ssl.SSLCertVerificationError), connected(stack, trusting(other)):
        pass
    with pytest.raises(ssl.SSLCertVerificationError), connected(stack, trusting(pki), "other.example.org"):
        pass
    began = time.monotonic()
    client = Client(stack.url, api_key=stack.admin_key, ca_file=other.authorities)
    with client, pytest.raises(ServerUnproven) as caught:
        client.tokens.caller()
    assert caught.value.reason == "CERTIFICATE_NOT_TRUSTED"
    assert "STRONGROOM_CA_FILE" in caught.value.message
    assert time.monotonic() - began < 5, "another try would change nothing"


@pytest.mark.row("S3.10")
def test_the_command_line_remembers_whom_to_believe(stack: Stack, pki: Pki, tmp_path: Path) -> None:
    def strongroom(*arguments: str, folder: Path, key: str = "") -> subprocess.CompletedProcess[str]:
        home = inherited() | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        command = [str(STRONGROOM), *arguments]
        return subprocess.run(
            command, input=key, capture_output=True, text=True, cwd=folder, env=home, timeout=30, check=False
        )

    login = ["login", "--url", stack.url]
    refusal = strongroom(*login, folder=tmp_path, key=stack.admin_key)
    assert refusal.returncode == 1
    assert "certificate is not one to believe" in refusal.stderr
    done = strongroom(*login, "--ca-file", "ca.pem", folder=pki.folder, key=stack.admin_key)
    assert done.returncode == 0, done.stderr
    assert "administrator" in strongroom("whoami", folder=tmp_path).stdout


@pytest.mark.row("S3.10")
def test_who_speaks_in_the_clear_is_told_so_in_both_shapes(stack: Stack) -> None:
    connection = http.client.HTTPConnection(stack.target, timeout=20)
    answer = ask(connection, "/api/v1/caller", {"X-API-Key": stack.admin_key})
    connection.close()
    assert "https://" in assert_problem(answer, 403, "TLS_REQUIRED")["detail"]
    with grpc.insecure_channel(stack.target) as channel:
        ask_who = tokens_pb2_grpc.TokenServiceStub(channel).GetCaller
        request, key = tokens_pb2.GetCallerRequest(), [("x-api-key", stack.admin_key)]
        refusal = refused(lambda: ask_who(request, metadata=key, timeout=10))
    assert refusal == (grpc.StatusCode.PERMISSION_DENIED, "TLS_REQUIRED")
    with Client(f"http://{stack.target}", api_key=stack.admin_key) as client, pytest.raises(PermissionDenied):
        client.tokens.caller()


@pytest.mark.row("S3.10")
def test_no_service_answers_who_has_no_certificate(stack: Stack, pki: Pki) -> None:
    for service in ("auth", "models", "secrets"):
        address = f"127.0.0.1:{stack.state['ports'][service]}"
        override = [("grpc.ssl_target_name_override", f"{service}.strongroom.internal")]
        trusted = grpc.ssl_channel_credentials(pki.authorities.read_bytes())
        for found in (grpc.insecure_channel(address), grpc.secure_channel(address, trusted, override)):
            with found as channel:
                call = tokens_pb2_grpc.TokenServiceStub(channel).GetKeySet
                assert refused(lambda call=call: call(tokens_pb2.GetKeySetRequest(), timeout=5))[0] in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )


def test_browsers_are_told_to_come_by_https_and_to_take_answers_as_data(stack: Stack, pki: Pki) -> None:
    found = {}
    for name in (NAME, "localhost", "127.0.0.1"):
        with connected(stack, trusting(pki), name) as connection:
            for path in ("/health", "/nothing/here"):
                headers = ask(connection, path).headers
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["x-frame-options"] == "DENY"
                assert "frame-ancestors 'none'" in headers["content-security-policy"]
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["cache-control"] == "no-store"
            found[name] = headers.get("strict-transport-security")
    assert found == {NAME: "max-age=31536000", "localhost": None, "127.0.0.1": None}


@pytest.mark.parametrize("headers", [{"x-big": HALF, "x-large": HALF}, {f"x-{number}": "a" for number in range(101)}])
def test_too_many_headers_are_told_in_both_shapes(
    stack: Stack, pki: Pki, channel: grpc.Channel, headers: dict[str, str]
) -> None:
    with connected(stack, trusting(pki)) as connection:
        assert_problem(ask(connection, "/health", headers), 431, "HEADERS_TOO_LARGE")
    call = tokens_pb2_grpc.TokenServiceStub(channel).GetKeySet
    refusal = refused(lambda: call(tokens_pb2.GetKeySetRequest(), metadata=list(headers.items()), timeout=10))
    assert refusal == (grpc.StatusCode.RESOURCE_EXHAUSTED, "HEADERS_TOO_LARGE")


def test_a_body_that_is_too_large_is_told_over_grpc_too(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/strongroom.auth.v1.SessionService/SignIn")
    refusal = refused(lambda: call(b"a" * 100_000, timeout=10))
    assert refusal == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE")


def test_an_upload_on_which_nothing_moves_ends_in_both_shapes(stack: Stack, pki: Pki, channel: grpc.Channel) -> None:
    place = {"manager_id": "default", "model_name": "idle", "version": "v1", "path": "weights"}
    ended = threading.Event()

    def stall() -> Iterator[files_pb2.PutFileRequest]:
        yield files_pb2.PutFileRequest(**place, body=httpbody_pb2.HttpBody(data=b"a few"))
        ended.wait(20)

    call = files_pb2_grpc.FileServiceStub(channel).PutFile.future(stall(), metadata=[("x-api-key", stack.admin_key)])
    with connected(stack, trusting(pki)) as connection:
        connection.putrequest("PUT", "/api/v1/managers/default/models/idle/versions/v1/files/weights")
        for name, value in {"X-API-Key": stack.admin_key, "content-length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"a few")
        answer = connection.getresponse()
        got = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    refusal = refused(lambda: call.result(timeout=20))
    ended.set()
    assert_problem(got, 408, "REQUEST_TIMEOUT")
    assert refusal == (grpc.StatusCode.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT")


def test_a_connection_that_says_nothing_is_closed(silent: socket.socket) -> None:
    assert silent.recv(1) == b""


@pytest.mark.row("S3.10")
def test_rotation_under_traffic_loses_no_request(stack: Stack, pki: Pki, tmp_path: Path) -> None:
    """New keys, then a new authority, while requests come on new and on old connections."""
    (tmp_path / "weights").write_bytes(b"weights" * 100_000)
    workers = {
        "new connections": _ask_anew(stack, pki),
        "an old connection": _ask_on(stack, pki),
        "the client": _use(stack, pki, tmp_path / "weights"),
    }
    stop, failures, counts = threading.Event(), [], dict.fromkeys(workers, 0)

    def work(name: str, step: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                step()
                counts[name] += 1
        except Exception as error:
            failures.append(f"{name}: {error!r}")

    threads = [threading.Thread(target=work, args=item) for item in workers.items()]
    for thread in threads:
        thread.start()
    try:
        before = shown(stack, pki)
        pki.rotate()
        rotated = _wait_for_another(stack, pki, before)
        pki.rotate_authority(distrust=True)
        latest = _wait_for_another(stack, pki, rotated)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(counts.values()) > 0, counts
    assert latest == read_pair(pki.of("edge")).fingerprint


def _wait_for_another(stack: Stack, pki: Pki, before: bytes) -> bytes:
    deadline = time.monotonic() + 20
    while (found := shown(stack, pki)) == before:
        assert time.monotonic() < deadline, "the new certificate is not shown"
        time.sleep(0.1)
    return found


def _ask_anew(stack: Stack, pki: Pki) -> Callable[[], None]:
    def step() -> None:
        with connected(stack, trusting(pki)) as connection:
            assert ask(connection, "/api/v1/caller", {"X-API-Key": stack.admin_key}).status == 200

    return step


def _ask_on(stack: Stack, pki: Pki) -> Callable[[], None]:
    host, _, port = stack.target.partition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=trusting(pki))

    def step() -> None:
        assert ask(connection, "/api/v1/managers/default/models", {"X-API-Key": stack.admin_key}).status == 200
        time.sleep(0.01)

    return step


def _use(stack: Stack, pki: Pki, weights: Path) -> Callable[[], None]:
    client = Client(stack.url, api_key=stack.admin_key, ca_file=pki.authorities, direct=False)
    numbers = iter(range(10_000))

    def step() -> None:
        number = next(numbers)
        client.secrets.put("tls/rotating", {"number": number})
        assert client.secrets.get("tls/rotating").data["number"] == number
        client.models.push("rotating", weights, version=f"v{number}")
        assert client.models.read("rotating", "weights", version=f"v{number}") == weights.read_bytes()

    return step


def test_a_gateway_alone_serves_certificates_of_its_operator_and_their_successors(tmp_path: Path) -> None:
    """As certbot replaces them: two files, one after the other."""
    authority, port = trustme.CA(), free_port()
    certificate, key = write(tmp_path, authority, NAME)
    tls = {"STRONGROOM_TLS_CERT": str(certificate), "STRONGROOM_TLS_KEY": str(key)}
    environment = inherited() | tls | {"STRONGROOM_GATEWAY_PORT": str(port)}
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([str(STRONGROOM), "gateway"], env=environment, stdout=log, stderr=log)
    try:
        alone = Stack(f"https://127.0.0.1:{port}", "", tmp_path)
        first = _eventually(lambda: _shown_by(alone, context))
        assert first == read_pair(certificate, key).fingerprint
        (tmp_path / "next").mkdir()
        new_certificate, new_key = write(tmp_path / "next", authority, NAME)
        new_certificate.replace(certificate)
        _eventually(lambda: b"is not that of the certificate" in (tmp_path / "log").read_bytes() or None)
        assert _shown_by(alone, context) == first
        new_key.replace(key)
        _eventually(lambda: _shown_by(alone, context) == read_pair(certificate, key).fingerprint or None)
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert b"PRIVATE" not in (tmp_path / "log").read_bytes()


def _shown_by(alone: Stack, context: ssl.SSLContext) -> bytes | None:
    try:
        with connected(alone, context, NAME) as connection:
            found: Any = connection.sock
            return bytes(found.getpeercert(binary_form=True))
    except ConnectionError:
        return None


def _eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_the_key_is_in_no_log_and_in_no_answer_of_the_supervisor(stack: Stack, pki: Pki) -> None:
    body = pki.of("edge").read_text().splitlines()[1]
    texts = [path.read_text(errors="replace") for path in (stack.data_dir / "logs").iterdir()]
    texts += [(stack.data_dir / "run" / name).read_text() for name in ("state.json", "envoy.yaml")]
    assert all(body not in text for text in texts)
    assert {path.stat().st_mode & 0o777 for path in (stack.data_dir / "run" / "tls").iterdir()} == {0o600}


def test_https_is_believed_about_the_right_host_by_others_clients(stack: Stack, pki: Pki) -> None:
    with urllib.request.urlopen(f"{stack.url}/health", timeout=10, context=trusting(pki)) as answer:  # noqa: S310
        assert answer.status == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{stack.url}/health", timeout=10)  # noqa: S310


def test_a_backup_has_the_certificates(stack: Stack, pki: Pki, tmp_path: Path) -> None:
    options = backup.Options(stack.data_dir, tmp_path / "backup", weights=False)
    backup.backup(options, {}, LOCK, datetime.now(UTC), "0.1.0")
    inside = opened(tmp_path / "backup")
    for file in ("authority.pem", "ca.pem", "edge.pem", "models.pem"):
        assert inside[f"files/pki/{file}"] == (pki.folder / file).read_bytes()
