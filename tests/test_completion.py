"""The Tab key in real shells: bash, zsh and fish, each with what `strongroom --show-completion` gives it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from strongroom import Client
from tests.screen import Dialogue
from tests.stack import STRONGROOM, Stack, inherited

# How each begins without the files of whoever runs this, and takes its completion.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(strongroom --show-completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit; compinit -u; eval "$(strongroom --show-completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "strongroom --show-completion fish | source"),
}


@pytest.mark.row("S3.11")
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_and_what_the_server_has(stack: Stack, tmp_path: Path, shell: str) -> None:
    command, take = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed on this machine")
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.secrets.put(f"completion-{shell}/database", {"found": f"by-{shell}"})
    environment = inherited() | {
        "HOME": str(tmp_path),
        "PATH": f"{STRONGROOM.parent}{os.pathsep}{os.environ['PATH']}",
        "STRONGROOM_URL": stack.url,
        "STRONGROOM_API_KEY": stack.admin_key,
        "TERM": "dumb",
        "PS1": "ready> ",
        "LC_ALL": "C.UTF-8",
    }
    dialogue = Dialogue(command, environment)
    if shell == "fish":
        dialogue.answer("", "function fish_prompt; echo -n 'ready> '; end")
    dialogue.answer("ready> ", f"{take}; echo ta''ken")
    # A command and a name, neither of them typed to its end.
    dialogue.answer("taken", f"strongroom secr\tget completion-{shell}/da\t--field found")
    dialogue.answer(f"by-{shell}", "exit")
    dialogue.end()


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish")])
def test_completion_is_kept_for_the_next_shell(tmp_path: Path, shell: str, file: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed on this machine")
    path = f"{STRONGROOM.parent}{os.pathsep}{os.environ['PATH']}"
    environment = inherited() | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config"), "PATH": path}
    # Which shell it is for is seen by who started it, so it must not be the shell's last command, which replaces it.
    command = [shell, "-c", "strongroom --install-completion; true"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert f"{shell} completion installed" in done.stdout, done.stderr
    assert (tmp_path / file).exists()
