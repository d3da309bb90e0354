"""Whatever a document refers to is there: pages, sections, pictures, files of the repository, variables."""

import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from services.auth.settings import AuthSettings
from services.models.settings import ModelsSettings
from services.secrets.settings import SecretsSettings
from services.shared.settings import ServiceSettings

REPOSITORY = Path(__file__).resolve().parent.parent
_FOLDERS = ("docs", "bench", "examples", "clients", "deploy", "tests", "services", "strongroom", "protos", "gateway")
DOCUMENTS = [
    *REPOSITORY.glob("*.md"),
    *(path for folder in _FOLDERS for path in (REPOSITORY / folder).rglob("*.md") if "node_modules" not in path.parts),
]
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?\)|(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_NAMED_FILE = re.compile(rf"`((?:{'|'.join(_FOLDERS)})/[\w./-]+\.\w+)`")


@cache
def prose(document: Path) -> str:
    """The text without its blocks of code."""
    return _FENCE.sub("", document.read_text())


def links(document: Path) -> list[str]:
    """Where it leads to within the repository."""
    found = (first or second for first, second in _LINK.findall(_CODE.sub("", prose(document))))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@cache
def anchors(document: Path) -> set[str]:
    """The names GitHub gives to sections: lower case, punctuation dropped, blanks to hyphens, repeats numbered."""
    names: list[str] = []
    for heading in _HEADING.findall(prose(document)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.append(f"{slug}-{repeats}" if (repeats := sum(slug == name for name in names)) else slug)
    return set(names)


def name(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(REPOSITORY), f"{name(document)} leads out of the repository: {link}"
        assert target.exists(), f"{name(document)} leads nowhere: {link}"
        assert not anchor or anchor in anchors(target), f"{name(document)} names no section of {name(target)}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = _NAMED_FILE.findall(prose(document))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_index_names_every_page() -> None:
    index = REPOSITORY / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    missing = {path.resolve() for path in index.parent.rglob("*.md")} - listed - {index.resolve()}
    assert sorted(map(name, missing)) == []


# https://diataxis.fr: who learns, who works, who looks something up and who wants to understand need other pages.
KINDS = {
    "Learn: a tutorial": ["tutorial.md"],
    "Do: how-to guides": ["hardening.md", "deployment.md", "high-availability.md"],
    "Look up: reference": ["rest.md", "cli.md", "errors.md", "grpc.md"],
    "Understand: explanation": ["architecture.md", "threat-model.md", "comparison.md"],
}


def test_the_index_has_pages_of_four_kinds() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text()
    kinds = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", index, re.DOTALL | re.MULTILINE))
    assert list(kinds) == list(KINDS)
    for kind, pages in KINDS.items():
        assert [page for page in pages if f"({page})" not in kinds[kind]] == [], kind


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in links(REPOSITORY / "README.md")


# Credentials of stores, providers and key systems have whatever names a file gives them behind these.
_NAMED_BY_USERS = re.compile(r"STRONGROOM_(STORE|PROVIDER|KMS)_")


@cache
def words_of_the_code() -> set[str]:
    """Every word in what runs, and in what tests it."""
    sources = (path for folder in ("services", "strongroom", "tests") for path in (REPOSITORY / folder).rglob("*.py"))
    return {word for path in sources if "_pb2" not in path.name for word in re.findall(r"\w+", path.read_text())}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_variable_that_is_named_is_read(document: Path) -> None:
    """By its name, or as the field of settings that has it behind the prefix."""
    named = set(re.findall(r"\bSTRONGROOM_[A-Z_]*[A-Z]\b", document.read_text()))
    asked = {variable for variable in named if not _NAMED_BY_USERS.match(variable)}
    known = words_of_the_code()
    assert {one for one in asked if one not in known and one.removeprefix("STRONGROOM_").lower() not in known} == set()


# What makes passwords cheap is for tests alone; which alias counted is nothing that anybody sets.
_FOR_NOBODY = {"password_cheap", "aliases_used"}


@pytest.mark.parametrize("settings", [AuthSettings, ModelsSettings, SecretsSettings])
def test_every_setting_is_in_a_page(settings: type[ServiceSettings]) -> None:
    text = "".join(document.read_text() for document in (REPOSITORY / "docs").glob("*.md"))
    named = {name for written in re.findall(r"\bSTRONGROOM_[A-Z_{},]+", text) for name in _spelt_out(written)}
    assert {name for name in settings.model_fields if name not in _FOR_NOBODY} - named == set()


def _spelt_out(written: str) -> list[str]:
    """The fields behind `STRONGROOM_{A,B}_{C,D}`."""
    parts = [part.split(",") for part in re.split(r"[{}]", written.removeprefix("STRONGROOM_"))]
    return ["".join(choice).lower() for choice in product(*parts)]
