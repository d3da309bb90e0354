"""`strongroom secrets import` and `export`: `.env` files, JSON, and what a shell reads."""

import io
import json
import os
import re
import shlex
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli import secret_values
from strongroom.cli.session import connected, counted, fail, misused, say

if TYPE_CHECKING:
    from strongroom.client import Client
    from strongroom.secrets.v1.secrets_pb2 import SecretVersion

# IEEE Std 1003.1, section 8.1: what every shell takes for a variable.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Format(StrEnum):
    """How fields are written in a file."""

    # NAME=value a line, as python-dotenv reads it.
    ENV = "env"
    JSON = "json"
    # `export NAME=value` a line, to be read by a POSIX shell.
    SHELL = "shell"


def import_secrets(
    name: Annotated[str, typer.Argument(help="The secret; or a folder such as prod/ for a JSON object of secrets.")],
    file: Annotated[Path, typer.Argument(help="The file; '-' is standard input.")] = Path("-"),
    format_: Annotated[
        Format | None, typer.Option("--format", help="env or json; told by the file's name if not given.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Keep the fields that the file does not name.")] = False,
) -> None:
    """Write the variables of a .env file, or the fields of a JSON object, as a secret.

    Example: strongroom secrets import prod/app .env
    """
    chosen = format_ or (Format.JSON if file.suffix == ".json" else Format.ENV)
    if chosen is Format.SHELL or (name.endswith("/") and chosen is not Format.JSON):
        misused("only env and json can be imported, and into a folder only json")
    fields: dict[str, Any] = secret_values.json_object(file) if chosen is Format.JSON else {**variables(file)}
    secrets = {name + key: value for key, value in fields.items()} if name.endswith("/") else {name: fields}
    if not all(isinstance(value, dict) for value in secrets.values()):
        misused(f"{file} holds something that is no JSON object: into a folder goes an object of secrets")
    with connected() as client:
        for path, data in secrets.items():
            version = _merged(client, path, data) if merge else client.secrets.put(path, data)
            say(f"wrote {path}, version {version.version}: {counted(len(data), 'field')}")


def export_secrets(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Secrets; a folder such as prod/ for all in it.")],
    format_: Annotated[Format, typer.Option("--format", help="How they are written.")] = Format.ENV,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, which only you can read.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write secrets as a .env file, as JSON or for a shell. Without --output to standard output.

    One secret as JSON is the object of its fields; several are an object of secrets, which `import` reads again.

    Example: strongroom secrets export prod/app --output .env
    """
    with connected() as client:
        paths = [path for name in names for path in _paths(client, name)]
        read = {path: client.secrets.value(path) for path in paths}
    if format_ is Format.JSON:
        several = len(names) > 1 or names[0].endswith("/")
        shown = {_below(names, path): data for path, data in read.items()} if several else next(iter(read.values()))
        content = json.dumps(secret_values.as_json(shown), indent=2, ensure_ascii=False) + "\n"
    else:
        fields: dict[str, Any] = {}
        for path, data in read.items():
            for twice in sorted(fields.keys() & data.keys()):
                fail(f"the field {twice} is in {path} and in another secret: export one of them, or as JSON")
            fields |= data
        content = "".join(_line(field, value, format_) for field, value in sorted(fields.items()))
    written(content.encode(), output, force=force)
    if output is not None:
        typer.echo(f"strongroom: wrote {counted(len(read), 'secret')} to {output}", err=True)


def written(content: bytes, output: Path | None, *, force: bool) -> None:
    """To standard output, or whole to a file that only its owner can read. Ends the command if that can't be."""
    if output is None:
        typer.echo(content if not _is_text(content) else content.decode(), nl=False)
        return
    try:
        _write(content, output, force=force)
    except FileExistsError:
        fail(f"{output} is there already; --force replaces it")
    except OSError as error:
        fail(f"{output} can't be written: {error.strerror}")


def dotenv_line(field: str, value: str) -> str | None:
    """`FIELD=value` so that python-dotenv reads this value; None if it can't be said."""
    quoted = "".join(_ESCAPES.get(sign, sign) for sign in value)
    ways = [value] if _BARE.fullmatch(value) else []
    for written_so in (*ways, f"'{value}'", f'"{quoted}"', value):
        line = f"{field}={written_so}\n"
        # Another line behind it, with both kinds of quotes: what opens here must close here.
        if _parsed(f"{line}AFTER_IT='\"'\n") == {field: value, "AFTER_IT": '"'}:
            return line
    return None


def variables(file: Path) -> dict[str, str]:
    """The variables of a .env file, or of standard input for `-`. Ends the command if there are none."""
    found: dict[str, str] = {}
    for name, value in _parsed(secret_values.text_of(file, str(file))).items():
        if value is None:
            misused(f"{file}: {name} has no value")
        found[name] = value
    return found or misused(f"{file} holds no variables")


def _line(field: str, value: Any, format_: Format) -> str:
    if not _VARIABLE.fullmatch(field):
        fail(f"the field {field} is no name of a variable (letters, digits and '_'): export it as JSON")
    if isinstance(value, bytes):
        fail(f"the field {field} holds bytes: export it as JSON")
    text = secret_values.plain(value)
    if format_ is Format.SHELL:
        if "\0" in text:
            fail(f"the field {field} holds a NUL character, which no variable can: export it as JSON")
        return f"export {field}={shlex.quote(text)}\n"
    line = dotenv_line(field, text)
    if line is None:
        fail(f"the field {field} can't be written to a .env file: export it as JSON")
    return line


def _parsed(text: str) -> dict[str, str | None]:
    """As python-dotenv reads it, without putting other variables in the place of `${…}`: a password may hold it."""
    from dotenv import dotenv_values

    # A file is read so that every line ends in "\n".
    return dotenv_values(stream=io.StringIO(text, newline=None), interpolate=False)


def _merged(client: "Client", path: str, data: dict[str, Any]) -> "SecretVersion":
    from strongroom.errors import NotFound

    try:
        return client.secrets.patch(path, data)
    except NotFound:
        return client.secrets.put(path, data, expected_version=0)


def _paths(client: "Client", name: str) -> list[str]:
    if not name.endswith("/"):
        return [name]
    found = [secret.name for secret in client.secrets.list(name)]
    if not found:
        fail(f"there is no secret in {name} that you may list")
    return found


def _below(names: list[str], path: str) -> str:
    """The name in a file: below the one folder that is exported, else whole."""
    return path.removeprefix(names[0]) if len(names) == 1 else path


def _is_text(content: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        content.decode()
        return True
    return False


def _write(content: bytes, output: Path, *, force: bool) -> None:
    """Whole or not at all; never through a link, and never readable by others, not for a moment."""
    if not force and (output.exists() or output.is_symlink()):
        raise FileExistsError
    # mkstemp makes it 0600, whatever the umask.
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        if force:
            temporary.replace(output)
        else:
            output.hardlink_to(temporary)  # fails if somebody made it meanwhile
    finally:
        temporary.unlink(missing_ok=True)
