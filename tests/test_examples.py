"""The programs in examples/ run as they stand, against a real Strongroom."""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import Client
from tests.screen import Dialogue
from tests.stack import Stack

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples"
# Prefect brings eighty packages that nothing else here needs, so it has an environment of its own, which lasts. Its
# release 3.8.8 does not start beside the newest FastAPI (`Body() got an unexpected keyword argument 'min_items'`).
PREFECT = ("prefect==3.8.8", "fastapi==0.139.2", "requests==2.34.2")


def variables(stack: Stack, api_key: str = "", **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STRONGROOM_", "PREFECT_"))}
    return kept | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": api_key} | more


def run(name: str, environment: dict[str, str], python: Path | str = sys.executable) -> str:
    """What the example printed."""
    command = [str(python), str(EXAMPLES / name)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, env=environment, **output, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def admin(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, api_key=stack.admin_key) as client:
        yield client


def test_every_example_is_executed() -> None:
    source = Path(__file__).read_text() + (REPOSITORY / "tests" / "test_typescript.py").read_text()
    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and f'"{path.name}"' not in source] == []


@pytest.mark.row("S3.11")
def test_the_program_with_an_event_loop(stack: Stack, admin: Client) -> None:
    key = admin.keys.create("example-async", permission_set="full_access").key
    out = run("async_client.py", variables(stack, key))
    assert re.fullmatch(r"10 secrets at a time\npushed \S+\n\['example-async'\]\n", out), out


@pytest.mark.row("S3.7")
def test_the_program_that_keeps_to_the_limits(stack: Stack, admin: Client) -> None:
    key = admin.keys.create("example-client", permission_set="read_only").key
    out = run("client.py", variables(stack, key))
    assert f"{stack.url} is healthy, and this is example-client" in out
    assert key not in out


@pytest.mark.row("S2.8")
def test_the_notebook_with_a_key(stack: Stack) -> None:
    out = run("notebook.py", variables(stack, stack.admin_key))
    assert "AuthHeaders(hidden)\nNewKey(name='prefect-workflows', id='" in out
    assert out.endswith("this is prefect-workflows\nand is no more: 401\n")
    assert "sr_" not in out


@pytest.mark.row("S2.8")
def test_the_notebook_as_a_user(stack: Stack, admin: Client) -> None:
    password = "notebook horse battery staple"
    admin.users.create("notebook@example.org", role="admin", password=password)
    out = run("notebook.py", variables(stack, STRONGROOM_EMAIL="notebook@example.org", STRONGROOM_PASSWORD=password))
    assert out.endswith("this is prefect-workflows\nand is no more: 401\n")
    assert not re.search(r"sr_|eyJ|battery", out)


@pytest.mark.row("S2.8")
def test_the_interactive_creation_of_a_key(stack: Stack, admin: Client) -> None:
    command = [sys.executable, str(EXAMPLES / "create_api_key.py")]
    dialogue = Dialogue(command, variables(stack, stack.admin_key), catch_output=True)
    dialogue.answer("Name", "example-asked")
    dialogue.answer("What is it for", "For a test")
    dialogue.answer("Number", "1")
    dialogue.answer("Limit it to", "managers/default/**")
    dialogue.answer("Days until", "30")
    dialogue.answer("Create it?", "y")
    status, key = dialogue.end()
    assert status == 0, dialogue.shown
    assert key.startswith("sr_")
    assert key.strip() not in dialogue.shown
    with Client(stack.url, api_key=key.strip()) as reader:
        assert reader.tokens.caller().name == "example-asked"
    made = next(item for item in admin.keys.list() if item.name == "example-asked")
    assert (made.description, made.permission_set, list(made.scopes)) == (
        "For a test",
        "read_only",
        ["managers/default/**"],
    )


@pytest.mark.row("S2.8")
def test_dramatiq_workers(stack: Stack, admin: Client) -> None:
    key = admin.keys.create("example-dramatiq", permission_set="training_pipeline").key
    for _twice in range(2):
        out = run("dramatiq_worker.py", variables(stack, key))
        assert out.endswith("stored: batch-0, batch-1, batch-2, batch-3\n")


@pytest.fixture(scope="module")
def prefect_python() -> Path:
    """A Python with Prefect, made once and kept in build/."""
    folder = REPOSITORY / "build" / PREFECT[0].replace("==", "-")
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists():
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        venv.create(folder, clear=True, with_pip=uv is None)
        install = [uv, "pip", "install", "-q", "-p", folder] if uv else [python, "-m", "pip", "install", "-q"]
        subprocess.run([*map(str, install), *PREFECT], check=True, timeout=170)
        made.touch()
    return python


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.row("S2.8")
def test_a_prefect_flow(stack: Stack, admin: Client, prefect_python: Path, tmp_path: Path) -> None:
    key = admin.keys.create("example-prefect", permission_set="prefect_workflows").key
    settings = {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    out = run("prefect_flow.py", variables(stack, key, **settings), prefect_python)
    (version,) = (item.version for item in admin.models.versions("prefect-demo"))
    assert f"kept as prefect-demo@{version}" in out
    assert key not in out
