"""Paths in a manager are names, and lead nowhere else (S0.10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.manager_paths import PathInvalid, check_root, logical, named, shown

ROOT = "./models/project1"


@pytest.mark.row("S0.10")
@pytest.mark.parametrize("path", ["scorer.pkl", "./scorer.pkl", "models/project1/scorer.pkl", f"{ROOT}/scorer.pkl"])
def test_a_path_may_be_given_with_the_managers_own_or_without(path: str) -> None:
    assert logical(ROOT, path) == "scorer.pkl"
    assert shown(ROOT, "scorer.pkl") == "./models/project1/scorer.pkl"


@pytest.mark.row("S0.10")
@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            ".",
            "..",
            "./",
            "/",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "./../x",
            "a//b",
            "a/",
            "a/./b",
            "././/x",
        ),
        *("a\\b", "..\\x", "C:x", "c:/x", "\\\\host\\share", "a\0b", "a\nb", "a\x7f", "a" * 1025, "\ud800"),
        *(f"{ROOT}/../x", f"{ROOT}/", f"{ROOT}//x"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(PathInvalid):
        logical(ROOT, path)


@pytest.mark.row("S0.10")
@pytest.mark.parametrize("root", ["/data/models", "..", "./../x", "models//x", "a\\b", "C:/models", "/", "\0"])
def test_a_manager_may_not_begin_elsewhere_either(root: str) -> None:
    with pytest.raises(PathInvalid):
        check_root(root)


@pytest.mark.parametrize("root", ["./models", "models/", ".", "./", "a/b/c"])
def test_what_is_shown_is_found_again(root: str) -> None:
    check_root(root)
    assert logical(root, shown(root, "deep/scorer.pkl")) == "deep/scorer.pkl"


@given(st.text(max_size=40), st.sampled_from([ROOT, "./models", "."]))
def test_whatever_passes_is_below_the_manager(path: str, root: str) -> None:
    try:
        found = logical(root, path)
    except PathInvalid:
        return
    assert not found.startswith("/")
    assert all(part not in ("", ".", "..") for part in found.split("/"))
    assert logical(root, shown(root, found)) in (found, logical(root, found))


@pytest.mark.parametrize(
    ("filename", "stem", "suffix"),
    [
        ("scorer.pkl", "scorer", ".pkl"),
        ("my model (2).safetensors", "my_model__2_", ".safetensors"),
        ("archive.tar.gz", "archive.tar", ".gz"),
        ("README", "README", ""),
        ("größe.npz", "gr__e", ".npz"),
        ("x.a_suffix_that_is_rather_long", "x.a_suffix_that_is_rather_long", ""),
    ],
)
def test_a_file_names_its_model(filename: str, stem: str, suffix: str) -> None:
    assert named(filename) == (stem, suffix)


@pytest.mark.row("S0.10")
@pytest.mark.parametrize(
    "filename", ["", ".", "..", ".pkl", "../x.pkl", "/etc/passwd", "a/b", "a\\b", "C:x", "a" * 200]
)
def test_a_filename_that_places_a_file_is_refused(filename: str) -> None:
    with pytest.raises(PathInvalid):
        named(filename)
