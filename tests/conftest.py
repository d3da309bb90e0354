"""One running Strongroom for the whole session, whatever the number of workers."""

import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import aws, key_vault, openbao, postgresql, secret_manager, store_servers
from tests.stack import RunningStack, Stack

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every program they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs keep the bytecode of what they import: compiled anew, it is two thirds of what starting Strongroom costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_BEGAN = time.monotonic()
_RUNNING = pytest.StashKey[RunningStack]()
_STACK = pytest.StashKey[Stack]()


def _started(config: pytest.Config) -> Stack:
    """Starts the stack at the first call in this process, the controller's if there are workers."""
    if _STACK not in config.stash:
        folder = Path(tempfile.mkdtemp(prefix="strongroom-"))
        config.stash[_RUNNING] = running = RunningStack(
            folder / "data",
            STRONGROOM_RATE_LIMIT="off",
            STRONGROOM_ROTATION_TARGETS="127.0.0.1:*",
            STRONGROOM_JOB_PRICES='{"train": 3600, "predict": 1800}',
        )
        config.stash[_STACK] = running.start()
    return config.stash[_STACK]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come last: what is quick to tell is told first."""
    items.sort(key=_is_slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """SLOW_UNTIL bounds a run: slow tests begin within so many seconds of it, or are left to `make slow`."""
    until = float(os.environ.get("SLOW_UNTIL") or "inf")
    if _is_slow(item) and time.monotonic() - _BEGAN > until:
        pytest.skip(f"slow, and this run has taken {until:.0f} s already: make slow")


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def pytest_collection_finish() -> None:
    """Thousands of tests are collected and stay: the collector of garbage need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells each worker where the stack is."""
    node.workerinput["stack"] = _started(node.config).dump()


def pytest_sessionfinish(session: pytest.Session) -> None:
    running = session.config.stash.get(_RUNNING, None)
    if running is not None:
        status = running.stop()
        if status == 0:
            shutil.rmtree(running.data_dir.parent)
        if status != 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"strongroom up ended with status {status}:\n{running.report()}")  # noqa: T201


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Stack:
    """The running Strongroom. Tests share it: give what you create names of your own."""
    workerinput = getattr(request.config, "workerinput", None)
    return Stack.load(workerinput["stack"]) if workerinput else _started(request.config)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A real PostgreSQL."""
    with postgresql.running() as server:
        yield server


@pytest.fixture(scope="module")
def postgresql_url(postgresql_server: postgresql.Server) -> str:
    """The URL of an empty database on it."""
    return postgresql_server.create_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind that there is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/strongroom.db"
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    return server.create_database()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[store_servers.S3Server]:
    """A real S3 server."""
    with store_servers.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[store_servers.GcsServer]:
    """A real server of Google Cloud Storage."""
    with store_servers.fake_gcs_server() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[store_servers.AzureServer]:
    """A real server of Azure Blob Storage."""
    with store_servers.azurite() as server:
        yield server


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No STRONGROOM_ variable of the caller's, and a home folder of the test's own."""
    for name in list(os.environ):
        if name.startswith("STRONGROOM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture(scope="session")
def openbao_server() -> Iterator[openbao.OpenBaoServer]:
    """A real OpenBao."""
    with openbao.running() as server:
        yield server


@pytest.fixture(scope="session", name="secret_manager")
def _secret_manager() -> Iterator[secret_manager.SecretManagerServer]:
    """A Google Cloud Secret Manager, where anybody may do everything."""
    with secret_manager.running() as server:
        yield server


@pytest.fixture(scope="session", name="key_vault")
def _key_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[key_vault.KeyVaultServer]:
    """An Azure Key Vault."""
    with key_vault.running(tmp_path_factory.mktemp("key_vault")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """A real moto server, where anybody may do everything. Tests share it: give what you create names of your own."""
    with aws.moto() as url:
        yield url
