"""Every command and snippet of the documents beside the README is executed as it is typed, or says why not."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import prestarted
from tests.stack import STRONGROOM, Stack, inherited

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs"
# The line above a block says by which test it is executed, or why by none.
_BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HERE = f"executed by tests/{Path(__file__).name}"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def blocks(page: str) -> list[tuple[str, str, str]]:
    """What stands above each block, its language and its code."""
    return _BLOCK.findall((DOCS / page).read_text())


WITH_COMMANDS = [page for page in PAGES if any(mark == _HERE for mark, *_ in blocks(page))]


def test_there_are_commands_to_execute() -> None:
    assert {"access.md", "tutorial.md"} <= set(WITH_COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed_or_says_why_not(page: str) -> None:
    for mark, _, code in blocks(page):
        by = re.fullmatch(r"executed by tests/(test_\w+\.py)", mark)
        told = page in (TESTS / by[1]).read_text() or mark == _HERE if by else re.match(r"not executed: \w", mark)
        assert told, f"{page}: say above this block who executes it, or '<!-- not executed: WHY -->':\n{code}"


@pytest.fixture(scope="module", name="commands")
def _commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a `strongroom` that starts at once."""
    with prestarted.command(tmp_path_factory.mktemp("commands")) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.timeout(330)  # a command is a program that starts, and on a machine that does much else, slowly
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_work_as_typed(stack: Stack, commands: Path, tmp_path: Path, page: str) -> None:
    script = "set -euo pipefail\n"
    for mark, language, code in blocks(page):
        if mark == _HERE:
            script += code if language == "sh" else f"python3 - <<'END OF SNIPPET'\n{code}END OF SNIPPET\n"
    # The shell goes on after a `!` whose command succeeds, although that is not what the page says.
    script = re.sub(r"^(! .*)$", r"\1 || exit 1", script, flags=re.MULTILINE)
    environment = inherited() | {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(commands), str(STRONGROOM.parent), os.environ["PATH"]]),
        "STRONGROOM_URL": stack.url,
        "STRONGROOM_API_KEY": stack.admin_key,
        "STRONGROOM_DATA_DIR": str(stack.data_dir),
    }
    typed = ["bash", "-c", script.replace("http://127.0.0.1:8080", stack.url).replace("127.0.0.1:8080", stack.target)]
    done = subprocess.run(
        typed, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
