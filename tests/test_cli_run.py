"""`strongroom run`: the command has the secrets in its environment, and is otherwise as if it were started alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import STRONGROOM, Stack, inherited
from tests.terminal import Terminal

SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]


@pytest.fixture(scope="module")
def secrets(stack: Stack) -> Terminal:
    terminal = Terminal.of(stack)
    data = {
        "user": "ada",
        "pass-word": "hush hush",
        "port": 5432,
        "tls": True,
        "none": None,
        "key": {"$base64": "AAH/"},
    }
    terminal("secrets", "put", "run/db", "-", stdin=json.dumps(data))
    return terminal


def environment(stack: Terminal) -> dict[str, str]:
    return inherited() | {
        "STRONGROOM_URL": stack.url,
        "STRONGROOM_API_KEY": stack.api_key,
        "XDG_CONFIG_HOME": "/nonexistent",
    }


def start(stack: Terminal, *arguments: object) -> "subprocess.Popen[str]":
    command = [str(STRONGROOM), "run", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(stack), stdout=pipe, stderr=pipe, stdin=pipe, text=True)


def run(stack: Terminal, *arguments: object, stdin: str = "") -> tuple[int, str, str]:
    process = start(stack, *arguments)
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err


@pytest.mark.row("S4.1")
def test_fields_become_variables_of_the_command_alone(secrets: Terminal) -> None:
    status, out, err = run(secrets, "--secret", "run/db:DB_", "--secret", "run/db#pass-word=PGPASSWORD", "--", *SHOW)
    assert (status, err) == (0, "")
    seen = json.loads(out)
    assert {name: value for name, value in seen.items() if name.startswith(("DB_", "PG"))} == {
        "DB_USER": "ada", "DB_PASS_WORD": "hush hush", "DB_PORT": "5432", "DB_TLS": "true", "DB_NONE": "",
        "DB_KEY": "AAH/", "PGPASSWORD": "hush hush",
    }  # fmt: skip
    assert "STRONGROOM_API_KEY" not in seen
    assert seen["HOME"] == os.environ["HOME"]
    assert not {"DB_USER", "PGPASSWORD"} & os.environ.keys()


def test_an_env_file_names_fields(secrets: Terminal, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PGPASSWORD=strongroom://run/db#pass-word\nPLAIN='${HOME}'\n")
    status, out, err = run(secrets, "--env-file", file, "--keep-credentials", "--", *SHOW)
    assert (status, err) == (0, "")
    seen = json.loads(out)
    assert (seen["PGPASSWORD"], seen["PLAIN"], seen["STRONGROOM_API_KEY"]) == ("hush hush", "${HOME}", secrets.api_key)


def test_the_command_is_the_process_its_input_output_and_status_are_its_own(secrets: Terminal) -> None:
    echo = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('err'); sys.exit(int(sys.argv[1]))"
    assert run(secrets, "-s", "run/db", "--", sys.executable, "-c", echo, "41", stdin="in") == (41, "in", "err")
    # What looks like an option of ours is the command's.
    done = run(secrets, "-s", "run/db", "--", "sh", "-c", 'echo "$1 $USER"', "sh", "--secret")
    assert done == (0, "--secret ada\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command(secrets: Terminal, number: signal.Signals) -> None:
    wait = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    process = start(secrets, "-s", "run/db", "--", sys.executable, "-c", wait)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=20) == 7
    process.communicate()


def test_a_command_without_a_handler_dies_of_the_signal_and_of_a_closed_pipe(secrets: Terminal) -> None:
    process = start(secrets, "-s", "run/db", "--", "sh", "-c", "kill -TERM $$")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    process = start(secrets, "-s", "run/db", "--", "yes")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGPIPE


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-s", "run/db", "--", "/nonexistent/command"), 127, "can't be run"),
        (("-s", "run/db", "--", "/etc/passwd"), 126, "can't be run"),
        (("-s", "run/none", "--", "true"), 1, "There is no secret 'run/none'"),
        (("-s", "run/db#nope=X", "--", "true"), 1, "has no field nope"),
        (("-s", "run/db", "-s", "run/db", "--", "true"), 1, "is set by another one too"),
        (("-s", "run/db:1", "--", "true"), 1, "is no name of a variable"),
        (("-s", "run/db#user=LD_PRELOAD", "--", "true"), 1, "can make programs run code"),
        (("-s", "run/db#user=OPENSSL_CONF", "--", "true"), 1, "can make programs run code"),
        (("-s", "run/db#user=BASH_ENV", "--", "true"), 1, "can make programs run code"),
        (("--", "true"), 2, "--secret NAME"),
    ],
)
def test_what_can_not_be_done_is_said_without_a_value(
    secrets: Terminal, arguments: tuple[str, ...], status: int, said: str
) -> None:
    code, out, err = run(secrets, *arguments)
    assert (code, out) == (status, "")
    assert said in err
    assert "hush" not in err
    assert err.count("\n") == 1


def test_a_dangerous_variable_is_set_where_it_is_allowed(secrets: Terminal) -> None:
    arguments = ("-s", "run/db#user=BASH_ENV", "--allow", "BASH_ENV", "--", "sh", "-c", "echo $BASH_ENV")
    assert run(secrets, *arguments) == (0, "ada\n", "")


def test_a_value_with_nul_is_no_variable(secrets: Terminal) -> None:
    secrets("secrets", "put", "run/nul", "-", stdin='{"a": "hush\\u0000"}')
    done = secrets("run", "-s", "run/nul", "--", "true")
    assert (done.status, done.err) == (
        1,
        "strongroom: run/nul#a: the value holds a NUL character, which no variable can\n",
    )
