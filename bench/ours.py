"""Strongroom as a user has it: `strongroom up`, and the command line as the client."""

import os
import subprocess
from pathlib import Path

from tests.stack import STRONGROOM, Stack


class CommandLine:
    """`strongroom push` and `pull` against a running stack.

    Args:
        direct: whether weights pass the gateway by, as they do for the user who started it on this machine.
    """

    def __init__(self, stack: Stack, *, direct: bool = True) -> None:
        self._variables = os.environ | {
            "STRONGROOM_URL": stack.url,
            "STRONGROOM_API_KEY": stack.admin_key,
            "STRONGROOM_DIRECT": "on" if direct else "off",
        }

    def push(self, name: str, version: str, path: Path) -> None:
        self._run("push", name, str(path), "--version", version)

    def pull(self, name: str, version: str, destination: Path) -> None:
        self._run("pull", f"{name}@{version}", str(destination))

    def remove(self, name: str, version: str) -> None:
        self._run("rm", f"{name}@{version}", "--yes")
        self._run("admin", "gc", "--min-age", "0")

    def start_push(self, name: str, version: str, path: Path) -> "subprocess.Popen[bytes]":
        """The same in the background."""
        return subprocess.Popen(
            [STRONGROOM, "push", name, str(path), "--version", version],
            env=self._variables,
            stdout=subprocess.DEVNULL,
        )

    def _run(self, *arguments: str) -> None:
        subprocess.run([STRONGROOM, *arguments], env=self._variables, check=True, stdout=subprocess.DEVNULL)
