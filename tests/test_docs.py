"""Every command that the documents beside the README show is executed as it is typed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.stack import STRONGROOM, Stack, inherited

DOCS = Path(__file__).resolve().parent.parent / "docs"
_BLOCK = re.compile(r"<!-- executed by tests/test_docs\.py -->\n```sh\n(.*?)```", re.DOTALL)
WITH_COMMANDS = sorted(path.name for path in DOCS.glob("*.md") if _BLOCK.search(path.read_text()))


def test_there_are_commands_to_execute() -> None:
    assert "access.md" in WITH_COMMANDS


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_work_as_typed(stack: Stack, tmp_path: Path, name: str) -> None:
    script = "set -euo pipefail\n" + "".join(_BLOCK.findall((DOCS / name).read_text()))
    environment = inherited() | {
        "HOME": str(tmp_path),
        "PATH": f"{STRONGROOM.parent}{os.pathsep}{os.environ['PATH']}",
        "STRONGROOM_URL": stack.url,
        "STRONGROOM_API_KEY": stack.admin_key,
        "STRONGROOM_DATA_DIR": str(stack.data_dir),
    }
    command = ["bash", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
