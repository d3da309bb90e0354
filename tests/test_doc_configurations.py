"""The configurations in the documents are accepted as they stand there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from services.auth import trust_files
from services.models.stores import configuration as stores
from services.secrets.providers import configuration as providers
from services.secrets.root_keys import configuration as root_keys
from services.shared.configuration import ConfigurationError

DOCS = Path(__file__).resolve().parent.parent / "docs"

# Who reads what each page shows, in its order.
READERS: list[tuple[str, int, Callable[[Path], object]]] = [
    ("stores.md", 0, stores.load),
    ("replicas.md", 0, stores.load),
    ("providers.md", 0, providers.load),
    ("root-keys.md", 0, lambda file: root_keys.load(file, file.with_name("root.key"))),
    ("outside-identities.md", 0, lambda file: trust_files.load_issuers(file, "https://strongroom.example.com")),
    ("outside-identities.md", 1, trust_files.load_aws_rules),
]


_BLOCK = re.compile(
    rf"^<!-- executed by tests/{Path(__file__).name} -->\n```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


def shown(page: str) -> list[str]:
    return _BLOCK.findall((DOCS / page).read_text())


@pytest.mark.parametrize(("page", "number", "read"), READERS)
def test_it_is_accepted(tmp_path: Path, page: str, number: int, read: Callable[[Path], object]) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(shown(page)[number])
    assert read(file)
    file.write_text(shown(page)[number].replace(": ", "_misspelt: ", 1))
    with pytest.raises((ConfigurationError, ValueError)):
        read(file)


def test_every_one_is_read() -> None:
    assert {(page.name, number) for page in DOCS.glob("*.md") for number, _ in enumerate(shown(page.name))} == {
        (page, number) for page, number, _ in READERS
    }
