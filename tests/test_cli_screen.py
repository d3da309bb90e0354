"""The command line on a terminal: bars, tables, and what it says while it waits. In scripts: none of it."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

from strongroom.cli.session import waits_told
from strongroom.errors import Unavailable
from strongroom.persevere import log, persevere
from tests.broken_line import broken_line
from tests.stack import STRONGROOM, Stack
from tests.terminal import Terminal

MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "w.bin").write_bytes(os.urandom(40 * MIB))
    return tmp_path / "w.bin"


class Screen:
    """A pseudo-terminal of 80 columns. Whoever is given `end` writes on it."""

    def __init__(self) -> None:
        self._ours, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def text(self) -> str:
        """Everything written on it until the last writer left."""
        os.close(self.end)
        shown = b""
        # Linux reports the end of a terminal as an error of input.
        while data := self._read():
            shown += data
        os.close(self._ours)
        return shown.decode()

    def _read(self) -> bytes:
        try:
            return os.read(self._ours, 65536)
        except OSError:
            return b""


def variables(stack: Stack, url: str | None = None) -> dict[str, str]:
    return os.environ | {"STRONGROOM_URL": url or stack.url, "STRONGROOM_API_KEY": stack.admin_key, "TERM": "xterm"}


def on_screen(stack: Stack, *arguments: object) -> str:
    screen = Screen()
    command = [STRONGROOM, *map(str, arguments)]
    run = subprocess.Popen(command, stdin=screen.end, stdout=screen.end, stderr=screen.end, env=variables(stack))
    shown = screen.text()
    assert run.wait(timeout=30) == 0, shown
    return shown


def test_a_bar_is_drawn_on_a_terminal(stack: Stack, source: Path, tmp_path: Path) -> None:
    shown = on_screen(stack, "push", "screen-bar", source, "--version", "v1")
    assert "━" in shown
    assert shown.rstrip().endswith("pushed screen-bar@v1: 1 file, 40.0 MiB")
    shown = on_screen(stack, "pull", "screen-bar@v1", tmp_path / "copy")
    assert "━" in shown
    assert shown.rstrip().endswith("40.0 MiB, verified")


def test_a_bar_is_drawn_on_standard_error_alone(stack: Stack, source: Path) -> None:
    screen = Screen()
    command = [STRONGROOM, "push", "screen-error", source, "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=screen.end, env=variables(stack), text=True)
    shown = screen.text()
    out, _ = run.communicate(timeout=30)
    assert "━" in shown
    assert out.startswith("{")
    assert "━" not in out


def test_no_bar_in_scripts(stack: Stack, source: Path) -> None:
    done = Terminal.of(stack)("push", "screen-script", source, "--version", "v1")
    assert (done.status, done.out, done.err) == (0, "pushed screen-script@v1: 1 file, 40.0 MiB\n", "")


def test_ids_and_digests_are_whole_on_a_narrow_terminal(stack: Stack, tmp_path: Path) -> None:
    strongroom = Terminal.of(stack)
    shown = on_screen(stack, "keys", "list")
    assert all(key["id"] in shown for key in strongroom("keys", "list", "--json").json["api_keys"])
    (tmp_path / "in").mkdir()
    for name in ("a" * 60, "b"):
        (tmp_path / "in" / name).write_text(name)
    strongroom("push", "screen-wide", tmp_path / "in", "--version", "v1")
    files = strongroom("show", "screen-wide", "--json").json["files"]
    shown = on_screen(stack, "show", "screen-wide").replace("\r\n", "")
    assert all(file["sha256"] in shown and file["path"] in shown for file in files)


def test_a_lost_connection_is_told_in_one_line(stack: Stack, source: Path) -> None:
    with broken_line(stack.target) as line:
        screen = Screen()
        command = [STRONGROOM, "push", "screen-lost", source]
        run = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=screen.end,
            env=variables(stack, line.url) | {"STRONGROOM_DIRECT": "off"},
        )

        def break_down() -> None:
            while line.carried < 5 * MIB:
                time.sleep(0.005)
            line.down = True
            time.sleep(1.5)
            line.down = False

        breaking = threading.Thread(target=break_down)
        breaking.start()
        shown = screen.text()
        breaking.join()
        assert run.wait(timeout=30) == 0, shown
        run.communicate()
    assert "strongroom: connection lost, going on in 1 s" in shown
    assert "Traceback" not in shown
    assert "grpc" not in shown


def wait_often(times: int) -> None:
    waits: list[float] = []

    def attempt() -> None:
        if len(waits) < times:
            raise Unavailable("away")

    persevere(attempt, lambda: 0, sleep=waits.append)


def test_many_waits_at_once_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with waits_told(log):
        for _file in range(4):
            wait_often(5)
    assert capsys.readouterr() == ("", "strongroom: connection lost, going on in 1 s\n")


def test_a_library_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with waits_told(log):
        pass
    wait_often(5)
    assert capsys.readouterr() == ("", "")


def test_a_shell_is_answered_what_it_can_complete() -> None:
    anywhere = Terminal("http://127.0.0.1:9", "")
    asked = {"_STRONGROOM_COMPLETE": "complete_bash", "COMP_WORDS": "strongroom pu", "COMP_CWORD": "1"}
    assert anywhere(**asked).out.split() == ["push", "pull"]


@pytest.mark.parametrize("arguments", [("push", "m", ""), ("pull", "m", "")])
def test_an_empty_path_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = Terminal("http://127.0.0.1:9", "sr_x")(*arguments)
    assert (done.status, done.out, done.err) == (2, "", "strongroom: the path is empty\n")


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(("secrets", "put", "s", "k=\udc80"), ""), (("secrets", "put", "s", "-"), '{"k": "\\ud800"}')],
)
def test_what_is_no_text_is_wrong_usage(arguments: tuple[str, ...], stdin: str) -> None:
    done = Terminal("http://127.0.0.1:9", "sr_x")(*arguments, stdin=stdin)
    assert (done.status, done.out, done.err) == (2, "", "strongroom: something that was given is no text (utf-8)\n")


def test_a_password_in_the_address_is_not_repeated() -> None:
    done = Terminal("http://user:hush@127.0.0.1:9", "sr_x")("ls")
    assert (done.status, done.out) == (1, "")
    assert "hush" not in done.err
    assert "password" in done.err
