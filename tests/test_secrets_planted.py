"""A value that was planted is found nowhere but where it was asked for: no file, log, error, or process shows it."""

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers import Caller, administrator
from tests.stack import STRONGROOM, Stack
from tests.terminal import Terminal

# Weights are large, and are never given a secret.
_SKIPPED = {"weights", "cache"}


def spellings(planted: str) -> list[bytes]:
    raw = planted.encode()
    return [raw, base64.b64encode(raw)[:-4], raw.hex().encode(), planted[::-1].encode()]


def kept(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not _SKIPPED & set(path.relative_to(folder).parts):
            try:
                yield path, path.read_bytes()
            except FileNotFoundError:  # others work with the same installation
                continue


def processes() -> Iterator[tuple[Path, bytes]]:
    """Arguments and environment of every process that we may look at."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                yield process / name, (process / name).read_bytes()
            except OSError:
                continue


@pytest.mark.row("S4.1")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")
def test_a_planted_value_is_nowhere(stack: Stack, tmp_path: Path) -> None:
    # Made here, so that not even this file holds it.
    planted = f"planted-{uuid.uuid4().hex}"
    name = f"planted/{uuid.uuid4().hex}"
    admin, terminal = administrator(stack), Terminal.of(stack)
    admin.rest("PUT", f"/api/v1/secrets/{name}", {"data": {"a": planted, "b": [planted]}, "allow_missing": True})
    terminal("secrets", "patch", name, "c=-", stdin=planted)
    terminal("secrets", "put", name, "-", "--pending", stdin=json.dumps({"a": planted, "deep": {"a": planted}}))
    terminal("secrets", "promote", name)
    assert planted in terminal("secrets", "get", name).out
    said = [*refusals(admin, name, planted), *(terminal(*words).err for words in misuses(name, planted))]
    for text in said:
        assert not any(spelling.decode() in text for spelling in spellings(planted)), text
    process = started_with(terminal, name)
    try:
        for path, content in processes():
            # Whoever runs a command can see its environment; the command is where it belongs.
            if path != Path(f"/proc/{process.pid}/environ"):
                assert not any(spelling in content for spelling in spellings(planted)), path
    finally:
        process.kill()
        process.communicate()
    terminal("secrets", "destroy", name, "--version", 1)
    terminal("secrets", "rm", name)
    for path, content in kept(stack.data_dir.parent):
        assert not any(spelling in content for spelling in spellings(planted)), path


def refusals(admin: Caller, name: str, planted: str) -> Iterator[str]:
    """What REST says of writes that it refuses, or takes without what it does not know."""
    path = f"/api/v1/secrets/{name}"
    wrong: list[tuple[str, str, object]] = [
        ("PUT", path, {"data": {"a": planted}, "expected_version": 99}),
        ("PUT", path, {"data": {"a": {"$base64": planted}}}),
        ("PUT", path, {"data": {"a": planted * 3000}}),
        ("PUT", path, {"data": planted}),
        ("PUT", path, {"data": {"a": planted}, "unknown": planted}),
        ("PUT", path, {"data": {"a": planted}, "expires_at": "1999-01-01T00:00:00Z"}),
        ("PUT", f"{path}-none", {"data": {"a": planted}}),
        ("POST", "/api/v1/secrets", {"name": name, "data": {"a": planted}}),
        ("POST", "/api/v1/secrets", {"name": "/bad/", "data": {"a": planted}}),
        ("POST", f"{path}:promote", {"version": 1}),
    ]
    for verb, where, body in wrong:
        status, answer = admin.rest(verb, where, body)
        assert status == 200 or 400 <= status < 500, (where, status)
        yield json.dumps(answer)


def misuses(name: str, planted: str) -> Iterator[tuple[object, ...]]:
    """Commands that fail although, or because, a value was given to them."""
    yield ("secrets", "put", name, planted)
    yield ("secrets", "put", name, f"a={planted}", f"a={planted}")
    yield ("secrets", "put", name, f"a={planted}", "--expected-version", "99")
    yield ("secrets", "put", name, f"a={planted}", "--expires", "never")
    yield ("secrets", "put", f"{name}//", f"a={planted}")
    yield ("secrets", "patch", f"{name}-none", f"a={planted}")
    yield ("secrets", "get", name, "--field", "none")


def started_with(terminal: Terminal, name: str) -> "subprocess.Popen[str]":
    """A command that has the secret, once it runs."""
    process = subprocess.Popen(
        [STRONGROOM, "run", "--secret", f"{name}#a=PLANTED", "--", "sh", "-c", "echo ready; read _"],
        env={"PATH": "/usr/bin:/bin", "STRONGROOM_URL": terminal.url, "STRONGROOM_API_KEY": terminal.api_key},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
