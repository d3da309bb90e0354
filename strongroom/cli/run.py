"""`strongroom run`: a command that gets secrets in its environment, and nobody else does.

The command takes the place of this process (execve), so signals, the terminal and the exit status are its own, and no
process stays that holds the values beside it.
"""

import errno
import os
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from strongroom.cli import secret_files, secret_values
from strongroom.cli.session import connected, fail, misused

if TYPE_CHECKING:
    from strongroom.client import Client

_SCHEME = "strongroom://"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What the dynamic linker, shells and interpreters run or load by the name of a variable: who may write a secret would
# otherwise run code as everybody who uses it.
_DANGEROUS = re.compile(
    r"LD_.*|DYLD_.*|BASH_.*|PYTHON.*|STRONGROOM_.*|GCONV_PATH|GLIBC_TUNABLES|LOCPATH|PATH|HOME|SHELL|IFS|ENV|PS4|CDPATH|"
    r"SHELLOPTS|BASHOPTS|PROMPT_COMMAND|PERL5?LIB|PERL5?OPT|PERL5DB|RUBYLIB|RUBYOPT|NODE_OPTIONS|NODE_PATH|CLASSPATH|"
    r"JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|GIT_(SSH|SSH_COMMAND|EXEC_PATH|ASKPASS|PAGER|EDITOR|CONFIG.*)|"
    r"GIT_(EXTERNAL_DIFF|PROXY_COMMAND|SEQUENCE_EDITOR|TEMPLATE_DIR)|SSH_ASKPASS|LESS(OPEN|CLOSE)|MANPAGER|LUA_(INIT|PATH|CPATH).*|"
    r"OPENSSL_(CONF|ENGINES|MODULES)|NPM_CONFIG_.*|R_PROFILE.*|PHPRC|PHP_INI_SCAN_DIR|GEM_(HOME|PATH)|BUNDLE_GEMFILE|"
    r"EDITOR|VISUAL|PAGER|BROWSER|ZDOTDIR|TERMINFO.*"
)
_CREDENTIALS = ("STRONGROOM_API_KEY", "STRONGROOM_TOKEN")


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What is run.")],
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            "-s",
            metavar="NAME[:PREFIX]",
            help="Every field of the secret becomes a variable: PREFIX and the field's name in capitals, with '_' for "
            "'.' and '-'. NAME#FIELD=VARIABLE gives one field alone. It can be repeated.",
        ),
    ] = None,
    env_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--env-file", "-e", help="A .env file; a value such as strongroom://prod/db#password is that field."
        ),
    ] = None,
    as_is: Annotated[bool, typer.Option("--as-is", help="Leave the names of fields as they are.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE", help="Set this one too, though it can make programs run code."),
    ] = None,
    keep_credentials: Annotated[
        bool, typer.Option("--keep-credentials", help="Let the command have STRONGROOM_API_KEY and STRONGROOM_TOKEN.")
    ] = False,
) -> None:
    """Run a command with secrets in its environment, and nowhere else.

    Example: strongroom run --secret prod/db:DB_ -- ./serve
    """
    if not secret and not env_file:
        misused("say which secrets: --secret NAME, or --env-file FILE")
    with connected() as client:
        given = _Given(client, allow or ())
        for file in env_file or ():
            given.add_file(file)
        for reference in secret or ():
            given.add_secret(reference, as_is=as_is)
    kept = {name: value for name, value in os.environ.items() if keep_credentials or name not in _CREDENTIALS}
    _become(command, kept | given.variables)


class _Given:
    """The variables that the command gets. What can't be one ends the command; its value is never told."""

    def __init__(self, client: "Client", allowed: Iterable[str]) -> None:
        self.variables: dict[str, str] = {}
        self._client = client
        self._allowed = frozenset(allowed)
        self._read: dict[str, dict[str, Any]] = {}

    def add_secret(self, reference: str, *, as_is: bool) -> None:
        """`NAME`, `NAME:PREFIX` or `NAME#FIELD=VARIABLE`."""
        name, mark, rest = re.match(r"([^:#]*)([:#]?)(.*)", reference, re.DOTALL).groups()  # type: ignore[union-attr]
        if mark == "#":
            field, equals, variable = rest.partition("=")
            self._set(variable if equals else _named(field), self._field(name, field), f"{name}#{field}")
            return
        for field, value in self._fields(name).items():
            self._set(rest + (field if as_is else _named(field)), value, f"{name}#{field}")

    def add_file(self, file: Path) -> None:
        for variable, value in secret_files.variables(file).items():
            if value.startswith(_SCHEME):
                name, _, field = value.removeprefix(_SCHEME).partition("#")
                self._set(variable, self._field(name, field), str(file))
            else:
                self._set(variable, value, str(file))

    def _fields(self, name: str) -> dict[str, Any]:
        if name not in self._read:
            self._read[name] = self._client.secrets.value(name)
        return self._read[name]

    def _field(self, name: str, field: str) -> Any:
        fields = self._fields(name)
        if field not in fields:
            fail(f"secret {name} has no field {field}; it has: {', '.join(sorted(fields)) or 'none'}")
        return fields[field]

    def _set(self, variable: str, value: Any, source: str) -> None:
        if not _VARIABLE.fullmatch(variable):
            fail(f"{source}: {variable!r} is no name of a variable (letters, digits and '_')")
        if _DANGEROUS.fullmatch(variable.upper()) and variable not in self._allowed:
            fail(f"{source}: {variable} can make programs run code; --allow {variable} sets it all the same")
        if variable in self.variables:
            fail(f"{source}: {variable} is set by another one too: give one of them a prefix (NAME:PREFIX)")
        text = _text(value)
        if "\0" in text:
            fail(f"{source}: the value holds a NUL character, which no variable can")
        self.variables[variable] = text


def _named(field: str) -> str:
    return re.sub(r"[.-]", "_", field).upper()


def _text(value: Any) -> str:
    """As a variable holds it: bytes as base64, nothing for null, what is no text as JSON."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        text: str = next(iter(secret_values.as_json(value).values()))
        return text
    return secret_values.plain(value)


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and a program inherits what is ignored (signal(7)): a pipe that closes must end it.
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - what was typed, without a shell
    except OSError as error:
        # As env(1) says it.
        status = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
        fail(f"{command[0]} can't be run: {error.strerror}", status)
