"""`strongroom up`: what it makes, what it keeps, how it ends.

Starting one takes seconds of processor time: the tests share three, and each leaves its own as it found it.
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from strongroom.local.console import Console, Report
from strongroom.local.ports import is_loopback, reachable
from strongroom.local.process import start_time
from strongroom.local.supervisor import Backoff
from tests.stack import STRONGROOM, RunningStack, Stack, free_port
from tests.test_gateway_rest import admin, call

KEY = re.compile(r"sr_[0-9A-Za-z]{41}")


# What auth alone is given to know.
CREDENTIALS = {
    "STRONGROOM_API_KEYS": "service:read_only:a-static-key-of-ours-0123456789",
    "CHAPKIT_API_KEYS": "a-static-key-of-the-documents-0123456789",
    "AUTH_TOKEN": "a-fixed-token-of-the-documents-0123456789",
    "JWT_SECRET": "a-secret-for-symmetric-tokens-0123456789",
    "STRONGROOM_ADMIN_EMAIL": "root@example.com",
    "STRONGROOM_ADMIN_PASSWORD": "the administrator's first password",
    "STRONGROOM_SOMETHING_SECRET": "what-a-later-version-has-a-name-for",
}
CHOSEN_KEY = "a-key-that-was-chosen-by-hand"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """An installation that runs, before and after each test."""
    stack = RunningStack(tmp_path_factory.mktemp("running") / "data")
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture
def one(running: RunningStack) -> Stack:
    """What runs there."""
    key = (running.data_dir / "admin.key").read_text().strip()
    return Stack(f"http://127.0.0.1:{running.port}", key, running.data_dir)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running installation that was given all credentials there are."""
    chosen = {"STRONGROOM_BOOTSTRAP_API_KEY": CHOSEN_KEY, "STRONGROOM_API_KEY": CHOSEN_KEY}
    with RunningStack(tmp_path_factory.mktemp("given") / "data", **CREDENTIALS, **chosen) as stack:
        yield stack


@dataclass(frozen=True)
class Ended:
    """An installation that ran, in a folder with a long path, and was told to stop; `gone`: its parts as they went."""

    running: RunningStack
    key: str
    sockets: Path
    sockets_mode: int
    gone: list[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """It does not run, before and after each test."""
    folder = tmp_path_factory.mktemp("ended") / ("long" * 20)
    folder.mkdir()
    running = RunningStack(folder / ("longer" * 10))
    stack = running.start()
    pids, sockets = stack.state["pids"], Path(stack.state["sockets"])
    mode = sockets.stat().st_mode & 0o777
    assert running.process is not None
    running.process.send_signal(signal.SIGTERM)
    gone: list[str] = []
    while len(gone) < len(pids):
        left = alive(pids)
        # Two that end within a moment cannot be told apart.
        gone += [name for name in ("gateway", "models", "secrets", "auth") if name not in [*left, *gone]]
    assert running.process.wait() == 0
    assert running.output.read_text().endswith("Stopping…\nStopped.\n")
    yield Ended(running, stack.admin_key, sockets, mode, gone)
    if running.process.poll() is None:
        running.stop()


def up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A `strongroom up` that is expected to give up at once."""
    return strongroom("up", *arguments, **environment)


def strongroom(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    command = [str(STRONGROOM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=kept | environment)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if start_time(pid) is not None]


def kill_supervisor(running: RunningStack) -> None:
    assert running.process is not None
    running.process.kill()
    running.process.wait()


def test_a_second_start_keeps_everything(running: RunningStack, one: Stack) -> None:
    first = one
    assert KEY.findall(running.output.read_text()) == [first.admin_key]
    assert admin(first, "POST", "/api/v1/secrets", {"name": "restarted", "data": {"a": "b"}}).status == 201
    pids = first.state["pids"]
    assert running.stop() == 0
    assert alive(pids) == []
    assert not (first.data_dir / "run" / "state.json").exists()

    second = running.start()
    assert second.admin_key == first.admin_key
    assert admin(second, "GET", "/api/v1/secrets/restarted").json["data"] == {"a": "b"}
    assert KEY.findall(running.output.read_text()) == [first.admin_key], "the key is printed once"


def test_everything_in_the_data_directory_is_private(one: Stack) -> None:
    for file in [one.data_dir, *one.data_dir.rglob("*")]:
        assert file.stat().st_mode & 0o077 == 0 or file.is_symlink(), file


def test_no_service_sees_the_secrets_of_another(given: Stack) -> None:
    assert given.admin_key == CHOSEN_KEY
    for name, pid in given.state["pids"].items():
        process = psutil.Process(pid)
        environment = process.environ()
        assert CHOSEN_KEY not in " ".join([*process.cmdline(), *environment.values()])
        assert ("STRONGROOM_ROOT_KEY_FILE" in environment) == (name == "secrets")
        assert ("STRONGROOM_BOOTSTRAP_API_KEY_FILE" in environment) == (name == "auth")
    assert admin(given, "GET", "/api/v1/caller").status == 200


def test_the_credentials_that_auth_is_given_reach_auth_alone(given: Stack) -> None:
    """By our names and by those of the documents; auth uses them, and nobody else sees them."""
    secrets = [value for name, value in CREDENTIALS.items() if name != "STRONGROOM_ADMIN_EMAIL"]
    for name, pid in given.state["pids"].items():
        seen = " ".join(psutil.Process(pid).environ().values())
        found = [secret for secret in secrets if secret in seen]
        assert found == (secrets if name == "auth" else []), name
    for header in ("X-API-Key", "Authorization"):
        token = CREDENTIALS["AUTH_TOKEN"] if header == "Authorization" else "a-static-key-of-ours-0123456789"
        value = f"Bearer {token}" if header == "Authorization" else token
        assert call(given, "GET", "/api/v1/caller", {header: value}).status == 200, header
    sign_in = {"email": "root@example.com", "password": CREDENTIALS["STRONGROOM_ADMIN_PASSWORD"]}
    assert call(given, "POST", "/api/v1/sessions", {}, json.dumps(sign_in).encode()).status == 201
    secret_files = [given.data_dir / "run" / "envoy.yaml", *given.data_dir.glob("logs/*")]
    assert not [file for file in secret_files for secret in secrets if secret in file.read_text(errors="replace")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRONGROOM_RATE_LIMIT", "many"),
        ("STRONGROOM_ALLOWED_ORIGINS", "*"),
        ("STRONGROOM_SIGNING_KEY_DELAY_SECONDS", "soon"),
    ],
)
def test_a_setting_of_the_edge_that_is_none_is_one_clear_line(tmp_path: Path, name: str, value: str) -> None:
    refused = up("--data-dir", str(tmp_path / "data"), "--port", "0", **{name: value})
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"strongroom: {name}")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
    alone = strongroom("gateway", "--port", "0", **{name: value})
    assert (alone.returncode, alone.stderr) == (1, refused.stderr)


def test_auth_answers_the_gateway_on_a_socket_that_nobody_else_may_open(one: Stack) -> None:
    socket = Path(one.state["sockets"]) / "check.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    before = one.state["pids"]["auth"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: one.state["pids"]["auth"] != before)
    wait_for(lambda: admin(one, "GET", "/api/v1/caller").status == 200)


@pytest.mark.slow
def test_a_revoked_admin_key_is_told_with_the_way_out(tmp_path: Path) -> None:
    running = RunningStack(tmp_path / "data")
    with running as first:
        [own] = [key for key in admin(first, "GET", "/api-keys").json["api_keys"] if key["name"] == "administrator"]
        assert admin(first, "POST", f"/api-keys/{own['id']}/revoke", {}).status == 200
    assert "is refused" not in running.output.read_text()
    with running:
        wait_for(lambda: "admin.key is refused: it was revoked" in running.output.read_text())
        assert "start with STRONGROOM_BOOTSTRAP_API_KEY=<a new one>" in running.output.read_text()
    running.environment["STRONGROOM_BOOTSTRAP_API_KEY"] = "another key that is long enough"
    with running as last:
        assert admin(last, "GET", "/api/v1/caller").status == 200


def test_a_lost_admin_key_is_not_made_again(ended: Ended) -> None:
    running = ended.running
    file, elsewhere = running.data_dir / "admin.key", running.data_dir / "elsewhere.key"
    file.rename(elsewhere)
    with pytest.raises(FileNotFoundError):
        running.start()  # it starts, but there is no key to read
    stack = Stack(f"http://127.0.0.1:{running.port}", ended.key, running.data_dir)
    assert admin(stack, "GET", "/api/v1/caller").status == 200
    assert not file.exists()
    assert KEY.findall(running.output.read_text()) == [ended.key]
    running.stop()
    elsewhere.rename(file)


def test_two_run_side_by_side(stack: Stack, one: Stack) -> None:
    assert stack.admin_key != one.admin_key
    assert admin(stack, "GET", "/api/v1/caller").status == admin(one, "GET", "/api/v1/caller").status == 200
    assert admin(Stack(one.url, stack.admin_key, one.data_dir), "GET", "/api/v1/caller").status == 401


def test_a_second_up_on_the_same_directory_is_refused(one: Stack) -> None:
    refused = up("--port", str(free_port()), STRONGROOM_DATA_DIR=str(one.data_dir))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"strongroom: Strongroom already runs on {one.data_dir};")
    assert refused.stderr.count("\n") == 1
    assert admin(one, "GET", "/api/v1/caller").status == 200


def test_a_port_in_use_is_one_clear_line(stack: Stack, tmp_path: Path) -> None:
    refused = up("--data-dir", str(tmp_path / "data"), "--port", stack.url.rpartition(":")[2])
    assert refused.returncode == 1
    said = r"strongroom: Port \d+ of 127\.0\.0\.1 is in use; choose another: strongroom up --port \d+\n"
    assert re.fullmatch(said, refused.stderr)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_short_bootstrap_key_is_refused(tmp_path: Path) -> None:
    refused = up("--data-dir", str(tmp_path / "data"), "--port", "0", STRONGROOM_BOOTSTRAP_API_KEY="short-secret")
    assert refused.returncode == 1
    assert "16" in refused.stderr
    assert "short-secret" not in refused.stderr


def test_a_lost_root_key_is_not_made_again(ended: Ended) -> None:
    data_dir = ended.running.data_dir
    file, elsewhere = data_dir / "root.key", data_dir / "elsewhere.key"
    file.rename(elsewhere)
    refused = up("--data-dir", str(data_dir), "--port", "0")
    assert refused.returncode == 1
    assert "root.key is missing" in refused.stderr
    assert not file.exists()
    elsewhere.rename(file)


def test_a_part_that_dies_is_started_again(running: RunningStack, one: Stack) -> None:
    before = one.state["pids"]
    for name in ("secrets", "gateway"):
        os.kill(before[name], signal.SIGKILL)
    wait_for(lambda: all(one.state["pids"][name] != before[name] for name in ("secrets", "gateway")))
    wait_for(lambda: _answers(one.url))
    assert one.state["pids"]["auth"] == before["auth"]
    assert "secrets died (killed by SIGKILL); starting it again" in running.output.read_text()


def test_children_die_with_a_killed_supervisor(running: RunningStack, one: Stack) -> None:
    pids = one.state["pids"]
    assert admin(one, "POST", "/api/v1/secrets", {"name": "kept", "data": {"a": "b"}}).status == 201
    kill_supervisor(running)
    wait_for(lambda: alive(pids) == [])
    again = running.start()
    assert admin(again, "GET", "/api/v1/secrets/kept").json["data"] == {"a": "b"}


def test_it_stops_the_gateway_first_and_auth_last(ended: Ended) -> None:
    assert ended.gone[0] == "gateway"
    assert ended.gone[-1] == "auth"


def test_a_long_path_is_no_obstacle(ended: Ended) -> None:
    assert ended.sockets_mode == 0o700
    assert not ended.sockets.exists()


def test_waits_double_until_a_part_lives() -> None:
    backoff = Backoff(first=1, longest=5)
    assert [backoff.next(lived=0) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.next(lived=61) == 1


@pytest.mark.parametrize(
    ("host", "private", "called"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("localhost", True, "localhost"),
        ("::1", True, "::1"),
        ("0.0.0.0", False, "127.0.0.1"),
        ("::", False, "::1"),
        ("192.0.2.1", False, "192.0.2.1"),
    ],
)
def test_where_others_hear_it_and_what_callers_can_type(host: str, private: bool, called: str) -> None:
    assert (is_loopback(host), reachable(host)) == (private, called)


def test_a_start_that_others_can_hear_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Console().ready(Report("http://127.0.0.1:8080", Path("data"), 1.0, None))
    assert "warning" not in capsys.readouterr().out
    Console().ready(Report("http://127.0.0.1:8080", Path("data"), 1.0, None, overheard="0.0.0.0"))
    assert "anyone on the way can read keys: strongroom pki init, see docs/tls.md\n" in capsys.readouterr().out


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310 - always our own http URL
            return bool(answer.status == 200)
    except OSError:
        return False
