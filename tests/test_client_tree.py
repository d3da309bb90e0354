"""Which files a push takes, and where a pull may write."""

import os
from pathlib import Path

import pytest

from strongroom.errors import DataLoss, LocalFileError
from strongroom.tree import targets, walk


def reason_of(source: Path) -> str:
    with pytest.raises(LocalFileError) as caught:
        walk(source)
    assert caught.value.message
    return caught.value.reason


def test_a_file_is_named_by_its_last_part(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "weights.bin"
    file.parent.mkdir()
    file.write_bytes(b"123")
    (found,) = walk(file)
    assert (found.name, found.size) == ("weights.bin", 3)


def test_a_folder_is_named_from_its_root_in_order(tmp_path: Path) -> None:
    for name in ("z.bin", "a/ü.bin", "a/b/c.bin", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in walk(tmp_path)] == [".hidden", "a/b/c.bin", "a/ü.bin", "z.bin"]


def test_links_inside_are_followed_and_others_refused(tmp_path: Path) -> None:
    outside, folder = tmp_path / "secret", tmp_path / "folder"
    outside.write_text("secret")
    folder.mkdir()
    (folder / "real").write_text("real")
    (folder / "alias").symlink_to("real")
    assert [file.name for file in walk(folder)] == ["alias", "real"]
    (folder / "leak").symlink_to(outside)
    assert reason_of(folder) == "LINK_LEADS_OUT"


def test_links_to_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "sub")
    assert reason_of(tmp_path) == "LINK_TO_FOLDER"


def test_what_cannot_be_pushed_is_said(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "missing") == "SOURCE_MISSING"
    assert reason_of(tmp_path) == "SOURCE_EMPTY"
    os.mkfifo(tmp_path / "pipe")
    assert reason_of(tmp_path) == "SOURCE_NOT_A_FILE"
    (tmp_path / "pipe").unlink()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert reason_of(tmp_path) == "SOURCE_MISSING"
    (tmp_path / "dangling").unlink()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    assert reason_of(tmp_path) == "NAME_INVALID"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"before")
    (found,) = walk(file)
    found.refuse_change()
    file.write_bytes(b"after it grew")
    with pytest.raises(LocalFileError, match="changed while it was pushed"):
        found.refuse_change()
    file.unlink()
    with pytest.raises(LocalFileError, match="changed while it was pushed"):
        found.refuse_change()


def test_one_file_goes_to_the_destination(tmp_path: Path) -> None:
    assert targets(["w.bin"], tmp_path / "new.bin") == {"w.bin": tmp_path / "new.bin"}


def test_one_file_goes_into_a_folder(tmp_path: Path) -> None:
    assert targets(["w.bin"], tmp_path) == {"w.bin": tmp_path / "w.bin"}
    assert targets(["w.bin"], f"{tmp_path}/new/") == {"w.bin": tmp_path / "new" / "w.bin"}


def test_several_files_go_below_the_destination(tmp_path: Path) -> None:
    assert targets(["a", "b/c"], tmp_path / "new") == {"a": tmp_path / "new" / "a", "b/c": tmp_path / "new" / "b" / "c"}


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a/./b", "a\0b", "a/"])
def test_a_hostile_server_cannot_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataLoss) as caught:
        targets([name, "other"], tmp_path)
    assert caught.value.reason == "PATH_UNSAFE"


@pytest.mark.parametrize("name", ["link", "link/x", "sub/link/x"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    for link in (tmp_path / "link", tmp_path / "sub" / "link"):
        link.symlink_to("/tmp")  # noqa: S108 - never written to
    with pytest.raises(LocalFileError) as caught:
        targets([name, "other"], tmp_path)
    assert caught.value.reason == "LINK_IN_THE_WAY"
