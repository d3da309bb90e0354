"""Folders of jobs: what a killed service leaves is removed by the next one, and nothing that is at work."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.models.jobs import folders
from tests.stack import inherited

_KILLED = """
import os, signal
from services.models.jobs import folders
with folders.made() as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "table.parquet").write_bytes(b"of somebody")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_service_left_is_removed_and_what_is_at_work_is_not(temporary: Path) -> None:
    environment = inherited() | {"TMPDIR": str(temporary)}
    killed = subprocess.run([sys.executable, "-c", _KILLED], env=environment, capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert (left / "deep" / "table.parquet").is_file()
    another = temporary / "strongroom-jobs.txt"
    another.touch()
    with folders.made() as folder:
        (folder / "mine").touch()
        folders.sweep()
        assert (folder / "mine").exists()
        assert not left.exists()
        assert another.exists()
    assert not folder.exists()


def test_a_link_is_not_followed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (temporary / "strongroom-job-link").symlink_to(elsewhere)
    folders.sweep()
    assert (elsewhere / "kept").exists()


def test_a_folder_that_becomes_a_link_while_it_is_emptied_leads_nowhere(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the process of a job does that is at work for a moment longer than the service that made it."""
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir(mode=0o750)
    left = temporary / "strongroom-job-left"
    for name in ("one", "other"):
        (left / name / "inner").mkdir(parents=True)
    (elsewhere / "inner").touch()

    def exchanged(_bytes: int) -> str:
        for number, name in enumerate(("one", "other")):
            if not (left / name).is_symlink():
                (left / name).rename(temporary / f"away-{number}")
                (left / name).symlink_to(elsewhere)
        return "moved"

    monkeypatch.setattr(folders, "token_hex", exchanged)
    folders.sweep()
    assert (elsewhere / "inner").is_file()
    assert elsewhere.stat().st_mode & 0o777 == 0o750


def test_what_is_closed_or_deep_is_removed(temporary: Path) -> None:
    folder = temporary / "strongroom-job-left"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "table").touch()
    (folder / "closed" / "inner").chmod(0)
    (folder / "closed").chmod(0)
    os.mkfifo(folder / "pipe")
    folders.sweep()
    assert not folder.exists()


def test_the_folder_goes_with_an_error_too() -> None:
    with pytest.raises(FileNotFoundError), folders.made() as folder:
        (folder / "nothing").stat()
    assert not folder.exists()
