"""The Tab key in real shells: bash, zsh and fish, each with what `strongroom --show-completion` gives it."""

import os
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom import Client, profiles
from tests.catalog import fresh
from tests.screen import Dialogue
from tests.stack import STRONGROOM, Stack, inherited
from tests.terminal import Terminal

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
    dialogue = Dialogue(command, _environment(stack, tmp_path))
    if shell == "fish":
        dialogue.answer("", "function fish_prompt; echo -n 'ready> '; end")
    dialogue.answer("ready> ", f"{take}; echo ta''ken")
    # A command and a name, neither of them typed to its end.
    dialogue.answer("taken", f"strongroom secr\tget completion-{shell}/da\t--field found")
    dialogue.answer(f"by-{shell}", "exit")
    dialogue.end()


@pytest.mark.row("S3.11")
def test_bash_completes_words_that_it_divides(stack: Stack, tmp_path: Path) -> None:
    model, manager = fresh("tab-scorer"), fresh("tab-manager")
    (tmp_path / "weights").write_bytes(b"1")
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.managers.create("regression", manager_id=manager)
        for where in ("default", manager):
            client.models.push(model, tmp_path / "weights", version="v1.0", manager=where)
        client.aliases.set(model, "champion", "v1.0")
    command, take = SHELLS["bash"]
    dialogue = Dialogue(command, _environment(stack, tmp_path))
    dialogue.answer("ready> ", f"{take}; echo ta''ken")
    shown = "taken"
    for typed, completed in (
        (f"pull {model[:-1]}\there", f"pull {model} here"),
        (f"stage {model}@\tprod\t", f"stage {model}@v1.0 production"),
        (f"show {model}:ch\t", f"show {model}:champion"),
        (f"rm --manager={manager[:-1]}\t{model}@v1.\t", f"rm --manager={manager} {model}@v1.0"),
    ):
        # What stands on the line then is printed, not run.
        dialogue.answer(shown, f"strongroom {typed}\x01echo ")
        shown = f"\nstrongroom {completed}"
    dialogue.answer(shown, "exit")
    dialogue.end()


def test_every_kind_of_name_is_offered(stack: Stack, tmp_path: Path) -> None:
    strongroom = Terminal.of(stack)
    model, config, manager = fresh("tab-all"), fresh("tab-config"), fresh("tab-all")
    file = tmp_path / "data.csv"
    file.write_text("a,b\n1,2\n")
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.managers.create("regression", manager_id=manager)
        client.models.push(model, file, version="v1", manager=manager)
        client.models.push(model, file, version="v2", manager=manager)
        client.aliases.set(model, "best", "v1", manager=manager)
        plain, hostile = client.configs.create(config, {}).id, client.configs.create(f"{config} $(x)", {}).id
        job = strongroom("train", file, "--config", plain, "--json").json["job_id"]
        used, revoked = (client.keys.create(fresh("tab"), permission_set="read_only").id for _ in range(2))
        client.keys.revoke(revoked)
    for typed, offered in (
        (f"pull -m {manager} {model[:-1]}", [model]),
        (f"pull {model}", []),
        (f"pull -m {manager} {model}@", [f"{model}@v1", f"{model}@v2"]),
        (f"pull -m {manager} {model}@v2", [f"{model}@v2"]),
        (f"pull -m {manager} {model}:b", [f"{model}:best"]),
        (f"rm -m {manager} {model}:b", []),
        (f"pull -m {manager} {model}.*", []),
        (f"alias -m {manager} {model} b", ["best"]),
        (f"alias -m {manager} {model} best v", ["v1", "v2"]),
        (f"ls --manager {manager[:-1]}", [manager]),
        (f"managers metrics {manager} {model}@v1", [f"{model}@v1"]),
        (f"rotate -m {manager} --model {model}", [model]),
        (f"stage {model}@v1 s", ["staging"]),
        ("search --stage a", ["archived"]),
        ("jobs list --status can", ["canceled", "canceling"]),
        (f"jobs cancel {job[:-1]}", [job]),
        (f"configs show {plain[:-1]}", [plain]),
        (f"train {file} --config {config}", [config]),
        # What a shell would have to quote is offered by its id.
        (f"train {file} --config {hostile}", [hostile]),
        (f"keys revoke {used[:-1]}", [used]),
        (f"keys revoke {revoked}", []),
        (f"keys show {revoked[:-1]}", [revoked]),
    ):
        done = strongroom(_STRONGROOM_COMPLETE="complete_bash", **_words(typed))
        assert (done.out.split(), done.err) == (offered, ""), typed


def test_descriptions_run_nothing(stack: Stack) -> None:
    name = fresh("tab-key")
    with Client(stack.url, api_key=stack.admin_key) as client:
        key = client.keys.create(f"{name}: \\$(id) `id` \"'[/x]", permission_set="read_only").id
    # zsh evaluates what it is told, and what it escapes twice is no longer escaped.
    typed = {"_STRONGROOM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"strongroom keys show {key}"}
    done = Terminal.of(stack)(**typed)
    assert key in done.out
    assert name in done.out
    assert not set("$`[") & set(done.out)
    assert done.err == ""


def test_tab_leaves_the_session_as_it_is(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, password = fresh("tab-session"), "the horse of the stable"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with Client(stack.url, api_key=stack.admin_key) as admin:
        user = admin.users.create(f"{name}@example.org", role="researcher", password=password)
        admin.managers.create("regression", manager_id=name)
        with Client(stack.url, session=profiles.KeptSession(stack.url)) as client:
            client.sessions.sign_in(f"{name}@example.org", password, new_password=f"{password} 2")
        signed_in = profiles.kept()
        assert signed_in.session is not None
        # Any command would renew it now.
        profiles.save(replace(signed_in, session=replace(signed_in.session, renew_at=0)))
        before = profiles.path().read_bytes()
        home = Terminal(stack.url, "", home=str(tmp_path))
        assert home(_STRONGROOM_COMPLETE="complete_bash", **_words(f"ls -m {name[:-1]}")).out.split() == [name]
        assert profiles.path().read_bytes() == before
        admin.users.delete(user.id)


def test_tab_is_silent_and_quick_where_nothing_answers(tmp_path: Path) -> None:
    broken = tmp_path / "strongroom" / "profile.json"
    broken.parent.mkdir()
    broken.write_text('["not a profile"')
    with socket.create_server(("127.0.0.1", 0)) as mute:
        for url in ("http://127.0.0.1:9", f"http://127.0.0.1:{mute.getsockname()[1]}", "", "gopher://x"):
            began = time.monotonic()
            terminal = Terminal(url, "" if not url else "sr_x", home=str(tmp_path))
            done = terminal(_STRONGROOM_COMPLETE="complete_bash", **_words("pull scorer@"))
            assert (done.status, done.out.strip(), done.err) == (0, "", ""), url
            assert time.monotonic() - began < 5, url


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


def _environment(stack: Stack, home: Path) -> dict[str, str]:
    return inherited() | {
        "HOME": str(home),
        "PATH": f"{STRONGROOM.parent}{os.pathsep}{os.environ['PATH']}",
        "STRONGROOM_URL": stack.url,
        "STRONGROOM_API_KEY": stack.admin_key,
        "TERM": "dumb",
        "PS1": "ready> ",
        "LC_ALL": "C.UTF-8",
    }


def _words(typed: str) -> dict[str, str]:
    """What bash says of the line, if nothing divides its words but spaces."""
    words = shlex.split(f"strongroom {typed}")
    return {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
