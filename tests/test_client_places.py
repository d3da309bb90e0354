"""Where a pull cannot write and a push cannot read: said clearly, and what is there stays as it is."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import LocalFileError
from strongroom.tree import targets, walk
from tests.stack import Stack

CONTENT = b"weights" * 100


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, api_key=stack.admin_key) as client:
        yield client


@pytest.fixture
def one(client: Client, tmp_path: Path) -> str:
    """A model of one file, `w.bin`."""
    (tmp_path / "w.bin").write_bytes(CONTENT)
    client.models.push("places-one", tmp_path / "w.bin")
    return "places-one"


@pytest.fixture
def two(client: Client, tmp_path: Path) -> str:
    """A model of two files, `a` and `sub/b`."""
    (tmp_path / "two" / "sub").mkdir(parents=True)
    (tmp_path / "two" / "a").write_bytes(b"a")
    (tmp_path / "two" / "sub" / "b").write_bytes(CONTENT)
    client.models.push("places-two", tmp_path / "two")
    return "places-two"


def refusal(client: Client, model: str, destination: Path | str) -> LocalFileError:
    with pytest.raises(LocalFileError) as caught:
        client.models.pull(model, destination)
    return caught.value


def test_a_pipe_is_not_replaced(client: Client, one: str, tmp_path: Path) -> None:
    """As /dev/null would be: who runs as root may rename a file over a device."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    assert refusal(client, one, tmp_path / "pipe").reason == "TARGET_NOT_A_FILE"
    assert refusal(client, one, tmp_path / "link").reason == "TARGET_NOT_A_FILE"
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_folder_in_a_files_place_is_not_replaced(client: Client, one: str, two: str, tmp_path: Path) -> None:
    (tmp_path / "here" / "w.bin").mkdir(parents=True)
    assert "is a folder" in refusal(client, one, tmp_path / "here").message
    (tmp_path / "there" / "sub" / "b").mkdir(parents=True)
    assert refusal(client, two, tmp_path / "there").reason == "TARGET_NOT_A_FILE"
    assert not (tmp_path / "there" / "a").exists(), "refused before anything is written"


def test_a_file_in_a_folders_place_is_not_replaced(client: Client, one: str, two: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for model, destination in (
        (two, tmp_path / "taken"),
        (one, tmp_path / "taken" / "w.bin"),
        (one, f"{tmp_path}/taken/"),
    ):
        error = refusal(client, model, destination)
        assert error.reason == "TARGET_NOT_A_FOLDER"
        assert f"{tmp_path / 'taken'} is not a folder" in error.message
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("mine")
    assert refusal(client, two, tmp_path / "out").reason == "TARGET_NOT_A_FOLDER"
    assert [path.read_text() for path in (tmp_path / "taken", tmp_path / "out" / "sub")] == ["mine", "mine"]


def test_a_place_that_cannot_be_written_is_named(client: Client, one: str, tmp_path: Path) -> None:
    long_name = tmp_path / ("n" * 300)
    assert refusal(client, one, long_name).message == f"{long_name} can't be written: File name too long."
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):
        # Root may write anywhere but into the kernel's own lists.
        locked = Path("/proc/self/task")
    error = refusal(client, one, locked / "w.bin")
    assert error.reason == "TARGET_UNWRITABLE"
    assert error.message.startswith(f"{locked / 'w.bin'} can't be written: ")


def test_the_destination_has_a_name(tmp_path: Path) -> None:
    """A variable that is not set is not the current folder."""
    with pytest.raises(LocalFileError) as caught:
        targets(["w.bin"], "")
    assert caught.value.reason == "TARGET_MISSING"


def test_a_link_to_a_file_is_replaced_and_not_written_through(client: Client, one: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("mine")
    (tmp_path / "current").symlink_to("old")
    client.models.pull(one, tmp_path / "current")
    assert (tmp_path / "current").read_bytes() == CONTENT
    assert (tmp_path / "old").read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/dev/null", "neither a file nor a folder"),
        ("n" * 300, "can't be read: File name too long"),
        (f"{__file__}/below", "can't be read: Not a directory"),
        ("/proc/self/nothing", "does not exist"),
    ],
)
def test_a_source_that_is_none_is_named(source: str, said: str) -> None:
    with pytest.raises(LocalFileError, match=said) as caught:
        walk(Path(source))
    assert source in caught.value.message


def test_a_file_that_shrinks_or_goes_during_a_push_is_no_version(client: Client, tmp_path: Path) -> None:
    for number, change in enumerate((lambda path: path.write_bytes(b""), lambda path: path.unlink())):
        for name in ("first.bin", "last.bin"):
            (tmp_path / f"{number}").mkdir(exist_ok=True)
            (tmp_path / f"{number}" / name).write_bytes(os.urandom(20 << 20))
        with pytest.raises(LocalFileError) as caught:
            client.models.push(
                "places-changed",
                tmp_path / f"{number}",
                progress=lambda _progress, change=change, number=number: (
                    change(tmp_path / f"{number}" / "last.bin")
                    if (tmp_path / f"{number}" / "last.bin").exists()
                    else None
                ),
            )
        assert caught.value.reason in {"SOURCE_CHANGED", "SOURCE_UNREADABLE"}
