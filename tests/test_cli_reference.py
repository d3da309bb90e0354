"""docs/cli.md has every command with its arguments and options, made of what `--help` says."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from bench.figures import table
from strongroom.cli import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """# The command line

Made from the commands themselves by `python -m tests.test_cli_reference`; `--help` of a command says the same, with
examples and defaults.

`STRONGROOM_URL` (`http://127.0.0.1:8080`) and `STRONGROOM_API_KEY` or `STRONGROOM_TOKEN` say where and who;
`strongroom login` keeps them in a profile. Most commands have `--json`, which prints what REST would answer, and JSON
of its own where the command is no call of REST, such as `doctor`. Exit status: 0 done, 1 refused or failed, 2 wrong
usage. Errors are one line on standard error.
"""
# What every command has.
_UNSAID = {"--help", "--json"}


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, (*path, name))
    elif not command.hidden:
        yield path, command


def _argument(parameter: Any) -> str:
    """As somebody types it: in brackets if it may be left out, with dots if it may be repeated."""
    name = (parameter.metavar or parameter.name.upper()).replace("...", "…")
    if name.startswith("["):
        name = name.replace("[", "").replace("]", "")
    if parameter.nargs == -1 and not name.endswith("…"):
        name = f"{name}…"
    return f"`{name}`" if parameter.required else f"`[{name}]`"


def _row(words: str, command: Any) -> list[str]:
    shown = [parameter for parameter in command.params if not parameter.hidden and _UNSAID.isdisjoint(parameter.opts)]
    arguments = [_argument(one) for one in shown if one.param_type_name == "argument"]
    options = [f"`{max(one.opts, key=len)}`" for one in shown if one.param_type_name == "option"]
    first_paragraph = inspect.cleandoc(command.help).split("\n\n")[0].replace("\n", " ")
    return [" ".join([f"`{words}`", *arguments]), " ".join(options), first_paragraph]


def render() -> str:
    """The page as it follows from the commands."""
    groups: dict[str, list[list[str]]] = {"strongroom": []}
    for path, command in sorted(_commands(get_command(app), ()), key=lambda entry: entry[0]):
        group = f"strongroom {path[0]}" if len(path) > 1 else "strongroom"
        groups.setdefault(group, []).append([cell.replace("|", "\\|") for cell in _row(" ".join(path), command)])
    head = ["command", "options", ""]
    return HEAD + "".join(f"\n## {group}\n\n{table(head, rows)}\n" for group, rows in groups.items())


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == render(), "run: python -m tests.test_cli_reference, and read the difference"


if __name__ == "__main__":
    PAGE.write_text(render())
