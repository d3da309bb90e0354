"""`strongroom secrets import` and `export`: what goes out comes in again, and nobody else reads it on the way."""

import io
import json
import stat
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.cli.secret_files import dotenv_line
from tests.stack import Stack
from tests.terminal import Terminal

ENV = """
# a comment
export USER=ada
PASSWORD='p#=1 "${HOME}'
URL="postgres://a\\nb"  # behind it
EMPTY=
"""
VARIABLES = {"USER": "ada", "PASSWORD": 'p#=1 "${HOME}', "URL": "postgres://a\nb", "EMPTY": ""}


@pytest.fixture
def secrets(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.mark.row("S4.1")
def test_an_env_file_becomes_a_secret_and_a_secret_one(secrets: Terminal, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(ENV)
    assert secrets("secrets", "import", "files/app", tmp_path / ".env").out == "wrote files/app, version 1: 4 fields\n"
    assert secrets("secrets", "get", "files/app", "--json").json["data"] == VARIABLES
    out = tmp_path / "out.env"
    done = secrets("secrets", "export", "files/app", "--output", out)
    assert (done.status, done.out, done.err) == (0, "", f"strongroom: wrote 1 secret to {out}\n")
    assert dotenv_values(out, interpolate=False) == VARIABLES
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert secrets("secrets", "export", "files/app").out == out.read_text()


@given(value=st.text(st.characters(exclude_categories=["Cs"])))
@example("a\\")
@example("'\"\\'\"\\")
@example(" # no comment ")
@example("${HOME} $(id) `id`")
@example("a\r\nb\rc\n")
@example("'")
@example("\u2028\x85\x0b")
def test_every_value_is_written_so_that_it_is_read_again_or_not_at_all(value: str) -> None:
    line = dotenv_line("FIELD", value)
    if line is not None:
        text = f"BEFORE='x'\n{line}BEHIND=\"y\"\n"
        expected = {"BEFORE": "x", "FIELD": value, "BEHIND": "y"}
        assert dotenv_values(stream=io.StringIO(text, newline=None), interpolate=False) == expected
    else:
        assert set(value) & set("\\'\"\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029") or not value.isprintable()


@pytest.mark.row("S4.1")
def test_a_folder_goes_out_as_json_and_comes_in_elsewhere(secrets: Terminal, tmp_path: Path) -> None:
    one, two = {"n": 1, "deep": [{"a": None}]}, {"key": {"$base64": "AAH/"}, "ü": "é"}
    secrets("secrets", "put", "files-from/one", "-", stdin=json.dumps(one))
    secrets("secrets", "put", "files-from/deep/two", "-", stdin=json.dumps(two))
    out = tmp_path / "all.json"
    secrets("secrets", "export", "files-from/", "--format", "json", "--output", out)
    assert json.loads(out.read_text()) == {"one": one, "deep/two": two}
    assert secrets("secrets", "import", "files-to/", out).out.count("wrote files-to/") == 2
    assert secrets("secrets", "get", "files-to/deep/two", "--json").json["data"] == two
    assert json.loads(secrets("secrets", "export", "files-to/one", "--format", "json").out) == one


def test_a_shell_reads_what_is_exported_for_it(secrets: Terminal) -> None:
    value = 'it\'s $HOME `id` \\ "quoted"\nnext line'
    secrets("secrets", "put", "files/shell", "VALUE=-", stdin=value)
    exported = secrets("secrets", "export", "files/shell", "--format", "shell").out
    done = subprocess.run(["sh", "-c", exported + 'printf %s "$VALUE"'], capture_output=True, text=True, check=True)
    assert done.stdout == value


def test_an_import_replaces_or_merges(secrets: Terminal) -> None:
    secrets("secrets", "put", "files/merge", "OLD=1", "BOTH=1")
    secrets("secrets", "import", "files/merge", "--merge", stdin="BOTH=2\nNEW=2\n")
    assert secrets("secrets", "get", "files/merge").out == "BOTH=2\nNEW=2\nOLD=1\n"
    secrets("secrets", "import", "files/merge", stdin="NEW=3\n")
    assert secrets("secrets", "get", "files/merge").out == "NEW=3\n"
    assert secrets("secrets", "import", "files/merge-new", "--merge", stdin="A=1\n").status == 0


def test_a_file_that_is_there_is_replaced_only_by_force_and_never_written_through_a_link(
    secrets: Terminal, tmp_path: Path
) -> None:
    secrets("secrets", "put", "files/safe", "A=hush")
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    for path in (target, link):
        assert secrets("secrets", "export", "files/safe", "-o", path).status == 1
    assert secrets("secrets", "export", "files/safe", "-o", link, "--force").status == 0
    assert (target.read_text(), link.is_symlink(), link.read_text()) == ("kept", False, "A=hush\n")
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    assert secrets("secrets", "export", "files/safe", "-o", tmp_path / "no" / "where").status == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"a b": "hush"}', "the field a b is no name of a variable"),
        ('{"KEY": {"$base64": "AAH/"}}', "the field KEY holds bytes"),
        ('{"KEY": "\\r\\u0000hush\\\\"}', ""),
    ],
)
def test_what_a_format_does_not_know_is_refused_without_its_value(secrets: Terminal, data: str, said: str) -> None:
    secrets("secrets", "put", "files/odd", "-", stdin=data)
    done = secrets("secrets", "export", "files/odd")
    if said:
        assert (done.status, done.out) == (1, "")
    assert "hush" not in done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("files/bad", "--format", "json"), '{"a": hush}'),
        (("files/bad", "--format", "json"), '{"a": NaN}'),
        (("files/bad", "--format", "json"), '["hush"]'),
        (("files/bad", "--format", "json"), "[" * 100_000),
        (("files/bad/", "--format", "json"), '{"a": "hush"}'),
        (("files/bad/", "--format", "env"), "A=hush"),
        (("files/bad",), ""),
        (("files/bad",), "hush\n"),
        (("files/bad",), "A=" + "hush" * 300_000),
        (("files/bad", "/nonexistent"), ""),
    ],
)
def test_a_file_that_is_no_such_file_is_refused_without_its_content(
    secrets: Terminal, arguments: tuple[str, ...], stdin: str
) -> None:
    done = secrets("secrets", "import", *arguments, stdin=stdin)
    assert (done.status, done.out) == (2, "")
    assert "A=hush" not in done.err
    assert done.err.count("\n") == 1
