"""Every command and snippet of the README that is marked so is executed, in order, as a new user types them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import RunningStack, inherited

REPOSITORY = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"<!-- executed by tests/test_readme\.py -->\n```(sh|python)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return _BLOCK.findall((REPOSITORY / "README.md").read_text())


def test_the_quick_start_has_ten_lines() -> None:
    language, code = blocks()[0]
    assert (language, len(code.splitlines())) == ("sh", 10)


def test_every_block_is_executed_or_starts_the_product() -> None:
    text = (REPOSITORY / "README.md").read_text()
    unmarked = re.sub(_BLOCK, "", text)
    assert re.findall(r"```(?:sh|python)\n(\w+ \w+)", unmarked) == ["make up"]


@pytest.mark.slow
def test_the_readme_works_as_typed(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    with RunningStack(tmp_path / ".strongroom") as stack:
        exported = ""
        for language, code in blocks():
            typed = code.replace("127.0.0.1:8080", stack.target)
            if language == "python":
                (tmp_path / "snippet.py").write_text(typed)
                typed = f"{sys.executable} snippet.py\n"
            script = f"set -euo pipefail\n{exported}{typed}"
            environment = inherited() | {"HOME": str(tmp_path), "STRONGROOM_URL": stack.url}
            command = ["bash", "-c", script]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{typed}\n{done.stdout}\n{done.stderr}"
            # A shell keeps what was exported or set, block after block.
            exported += "".join(f"{line}\n" for line in typed.splitlines() if re.match(r"export |[A-Z]+=", line))
