"""The repository as a user and an engineer find it."""

import os
import secrets
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_secrets_is_the_standard_library() -> None:
    """Our service is only ever `services.secrets`."""
    assert Path(secrets.__file__).is_relative_to(sysconfig.get_paths()["stdlib"])


def test_importing_the_services_does_nothing(tmp_path: Path) -> None:
    """No engine, no thread and no file is made by an import."""
    script = (
        "import threading, os\n"
        "import services.auth.bootstrap, services.models.bootstrap, services.secrets.bootstrap\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert os.listdir('.') == []"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment, timeout=60)


def test_the_wheel_has_what_the_gateway_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, check=True, cwd=REPOSITORY, capture_output=True, timeout=60)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"strongroom/gateway/{name}" for name in ("envoy.yaml", "lua/problem.lua", "strongroom.binpb")} <= names
    assert {f"services/{name}/migrations/versions/0001_initial.py" for name in ("auth", "models", "secrets")} <= names
    assert "services/shared/alembic/env.py" in names
    assert not any(name.startswith(("tests/", "bench/", "protos/")) for name in names)


def test_the_locks_name_no_host() -> None:
    for lock in REPOSITORY.glob("*.lock"):
        assert "://" not in lock.read_text()


def test_every_pinned_package_has_a_hash() -> None:
    for lock in REPOSITORY.glob("*.lock"):
        entries = [entry for entry in lock.read_text().split("\n") if "==" in entry]
        assert entries
        assert all(entry.rstrip().endswith("\\") for entry in entries)
