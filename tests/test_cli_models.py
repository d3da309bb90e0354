"""`strongroom push`, `pull`, `ls`, `show`, `verify`, `rm`, `admin gc` as they are typed."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.broken_line import broken_line
from tests.stack import STRONGROOM, Stack
from tests.terminal import Terminal

MIB = 1 << 20


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


def rest(stack: Stack, path: str) -> Any:
    """What REST answers."""
    request = urllib.request.Request(stack.url + path, headers={"X-API-Key": stack.admin_key})  # noqa: S310
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - always our own http URL
        return json.load(answer)


def test_a_model_from_push_to_rm(strongroom: Terminal, tmp_path: Path) -> None:
    source, copy = tmp_path / "w.bin", tmp_path / "copy.bin"
    source.write_bytes(os.urandom(3 * MIB))
    done = strongroom("push", "cli-life", source, "--version", "v1")
    assert (done.status, done.out, done.err) == (0, "pushed cli-life@v1: 1 file, 3.0 MiB\n", "")
    assert strongroom("push", "cli-life", source, "--version", "v2").out.endswith("3.0 MiB, 0 B sent\n")
    assert strongroom("ls", "cli-life").out.splitlines()[0].split("\t")[:3] == ["v2", "3.0 MiB", "1 file"]
    assert strongroom("show", "cli-life").out.startswith("cli-life@v2  3.0 MiB")
    assert strongroom("verify", "cli-life@v1").out == "cli-life@v1 is intact: 1 file, 3.0 MiB\n"
    assert strongroom("pull", "cli-life@v1", copy).out == "pulled cli-life@v1: 1 file, 3.0 MiB, verified\n"
    assert copy.read_bytes() == source.read_bytes()
    assert strongroom("rm", "cli-life@v1").out.startswith("deleted cli-life@v1: 0 chunks shredded, ")
    gone = strongroom("pull", "cli-life@v1", copy)
    assert (gone.status, gone.out, gone.err) == (1, "", "strongroom: Model 'cli-life' has no version 'v1'.\n")


def test_json_is_what_rest_answers(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    source = tmp_path / "w.bin"
    source.write_bytes(b"weights of nobody else")
    base = "/api/v1/managers/default/models"
    pushed = strongroom("push", "cli-json", source, "--version", "v1", "--json").json
    assert pushed == rest(stack, f"{base}/cli-json/versions/v1")
    assert strongroom("show", "cli-json@v1", "--json").json == pushed
    assert strongroom("ls", "cli-json", "--json").json == rest(stack, f"{base}/cli-json/versions")
    assert strongroom("pull", "cli-json", tmp_path / "copy", "--json").json == pushed
    models = strongroom("ls", "--json").json
    assert models.keys() == rest(stack, base).keys()
    assert next(model for model in models["models"] if model["name"] == "cli-json")["versions_count"] == 1
    report = strongroom("verify", "cli-json@v1", "--json").json
    assert (report["is_valid"], report["bytes_checked"], report["problems"]) == (True, 22, [])
    assert strongroom("rm", "cli-json@v1", "--json").json["shredded_chunks"] == 1
    assert strongroom("admin", "gc", "--dry-run", "--json").json.keys() >= {"deleted_packs", "freed_bytes"}


def test_a_folder_goes_up_and_comes_down(strongroom: Terminal, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "config.json").write_text("{}")
    (tmp_path / "in" / "sub" / "w.bin").write_bytes(b"weights")
    assert strongroom("push", "cli-folder", tmp_path / "in", "--version", "v1").status == 0
    assert strongroom("pull", "cli-folder@v1", tmp_path / "out").out.startswith("pulled cli-folder@v1: 2 files")
    assert (tmp_path / "out" / "sub" / "w.bin").read_bytes() == b"weights"


def test_a_dry_run_sends_nothing(strongroom: Terminal, tmp_path: Path) -> None:
    source = tmp_path / "w.bin"
    source.write_bytes(os.urandom(2 * MIB))
    plan = strongroom("push", "cli-dry", source, "--dry-run", "--json").json
    assert plan == {"total_bytes": 2 * MIB, "bytes_to_send": 2 * MIB}
    assert strongroom("push", "cli-dry", source, "--dry-run").out == "would send 2.0 MiB of 2.0 MiB\n"
    assert strongroom("ls", "cli-dry").status == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nope",),
        ("push",),
        ("push", "a/b", "file"),
        ("push", "m", "file", "--nope"),
        ("pull", "m@", "dest"),
        ("pull", "m@a b", "dest"),
        ("rm", "m"),
        ("rm", "m@latest"),
        ("keys",),
        ("keys", "create", "k"),
        ("keys", "create", "k", "--permission-set", "read_only", "--expires-in-days", "0"),
        ("secrets", "put", "s"),
        ("secrets", "get", "s", "--version", "-1"),
        ("alias", "m", "champion"),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    done = Terminal("http://127.0.0.1:9", "sr_x")(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith(("strongroom: ", "Usage: "))
    if done.err.startswith("strongroom: "):
        assert done.err.count("\n") == 1


def test_a_word_that_is_nearly_a_command_is_told() -> None:
    told = Terminal("http://127.0.0.1:9", "sr_x")("aliases").err
    assert told == "strongroom: No such command 'aliases'. Did you mean 'alias'? See: strongroom --help\n"


def test_failures_are_one_line_and_status_1(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    source = tmp_path / "w.bin"
    source.write_bytes(b"weights")
    (tmp_path / "empty").mkdir()
    nowhere = "http://127.0.0.1:9"
    for said, done in {
        "does not exist": strongroom("push", "m", tmp_path / "missing"),
        "holds no files": strongroom("push", "m", tmp_path / "empty"),
        "`latest`": strongroom("push", "m", source, "--version", "latest"),
        "There is no model 'nope'. See: strongroom ls\n": strongroom("show", "nope@v1"),
        "not-a-manager": strongroom("push", "m", source, "--manager", "not-a-manager"),
        f"the key in STRONGROOM_API_KEY is not known at {stack.url}": Terminal(stack.url, "sr_wrong")("ls"),
        "strongroom login ": Terminal(stack.url, "")("ls"),
        f"Nothing answers at {nowhere}. Start it: strongroom up\n": Terminal(nowhere, "sr_x")("ls"),
        "does not speak TLS: write http://": Terminal(f"https://{stack.target}", "sr_x")("ls"),
        "looks like": Terminal("ftp://127.0.0.1", "sr_x")("ls"),
    }.items():
        assert done.status == 1
        assert done.out == ""
        assert said.strip() in done.err
        assert done.err.startswith("strongroom: ")
        assert done.err.count("\n") == 1
        assert "sr_wrong" not in done.err


def test_a_traceback_only_when_asked_for(stack: Stack) -> None:
    with pytest.raises(Exception, match="Authentication required"):
        Terminal(stack.url, "")("ls", STRONGROOM_DEBUG="1")


def test_a_name_cannot_move_the_cursor(strongroom: Terminal, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a\x1b[2J\nforged\tline").write_bytes(b"1")
    strongroom("push", "cli-escape", tmp_path / "in", "--version", "v1")
    shown = strongroom("show", "cli-escape@v1").out
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2
    assert strongroom("show", "cli-escape@v1", "--json").json["files"][0]["path"] == "a\x1b[2J\nforged\tline"


def typed(stack: Stack, *arguments: object, url: str | None = None) -> subprocess.Popen[str]:
    # Through the gateway, whose line these tests break.
    variables = {"STRONGROOM_URL": url or stack.url, "STRONGROOM_API_KEY": stack.admin_key, "STRONGROOM_DIRECT": "off"}
    return subprocess.Popen(
        [STRONGROOM, *map(str, arguments)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_push_goes_on(strongroom: Terminal, stack: Stack, tmp_path: Path, how: signal.Signals) -> None:
    """Packs of 64 MiB are durable as they fill up: after 200 MiB some are there."""
    source = tmp_path / "w.bin"
    source.write_bytes(os.urandom(300 * MIB))
    model = f"cli-cut-{how.name}"
    with broken_line(stack.target) as line:
        push = typed(stack, "push", model, source, "--version", "v1", url=line.url)
        while line.carried < 200 * MIB:
            assert push.poll() is None
            time.sleep(0.005)
        push.send_signal(how)
        out, err = push.communicate(timeout=20)
    assert out == ""
    if how == signal.SIGINT:
        assert push.returncode == 130
        assert err == "strongroom: interrupted. Run the same command again to go on where it was\n"
    assert strongroom("show", f"{model}@v1").status == 1
    with broken_line(stack.target) as line:
        again = Terminal(line.url, stack.admin_key)("push", model, source, "--version", "v1", STRONGROOM_DIRECT="off")
        assert again.status == 0, again.err
        assert line.carried < 250 * MIB, "nothing of it was kept"
    assert strongroom("verify", f"{model}@v1").status == 0


def test_an_interrupted_pull_goes_on(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    source, copy = tmp_path / "w.bin", tmp_path / "copy.bin"
    source.write_bytes(os.urandom(200 * MIB))
    strongroom("push", "cli-pull", source, "--version", "v1")
    with broken_line(stack.target) as line:
        pull = typed(stack, "pull", "cli-pull@v1", copy, url=line.url)
        while line.carried < 100 * MIB:
            assert pull.poll() is None
            time.sleep(0.005)
        pull.kill()
        pull.communicate(timeout=20)
    assert not copy.exists()
    with broken_line(stack.target) as line:
        again = Terminal(line.url, stack.admin_key)("pull", "cli-pull@v1", copy, STRONGROOM_DIRECT="off")
        assert again.status == 0, again.err
        assert line.carried < 150 * MIB, "nothing of it was kept"
    assert copy.read_bytes() == source.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"w.bin", "copy.bin"}


def test_help_is_quick_and_loads_no_grpc() -> None:
    started = time.perf_counter()
    shown = subprocess.check_output([STRONGROOM, "--help"], text=True)
    seconds = time.perf_counter() - started
    for command in ("push", "pull", "ls", "show", "verify", "rm", "secrets", "keys", "login", "status", "admin", "up"):
        assert f"\n  {command} " in shown
    assert seconds < 2, "0.15 s on an idle machine"
    code = (
        "import sys, strongroom.cli; print([m for m in ('grpc', 'rich', 'services', 'sqlalchemy') if m in sys.modules])"
    )
    assert subprocess.check_output([STRONGROOM.parent / "python", "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("command", ["push", "pull", "secrets put", "keys create"])
def test_help_has_an_example(command: str) -> None:
    shown = Terminal("http://127.0.0.1:9", "")(*command.split(), "--help")
    assert shown.status == 0
    assert f"strongroom {command} " in shown.out.split("Example:")[1]
