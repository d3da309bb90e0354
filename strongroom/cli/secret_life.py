"""`strongroom secrets`: promote, discard, rollback, rm, undelete, destroy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.secret_values import Name, Provider
from strongroom.cli.session import Json, confirmed, connected, counted, fail, misused, print_message

if TYPE_CHECKING:
    from strongroom.secrets.v1.secrets_pb2 import SecretVersion

_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Versions = Annotated[
    list[int] | None, typer.Option("--version", "-v", min=1, help="Only this version; it can be repeated.")
]


def promote(
    name: Name,
    version: Annotated[int, typer.Option("--version", "-v", min=0, help="The pending one if not given.")] = 0,
    json: Json = False,
) -> None:
    """Take the pending version into use; the one that was current becomes the previous.

    Example: strongroom secrets put prod/db password=- --pending && strongroom secrets promote prod/db
    """
    with connected() as client:
        version = version or _pending(client.secrets.history(name), name)
        promoted = client.secrets.promote(name, version)
    line = f"{name}: version {version} is current"
    print_message(promoted, lambda: typer.echo(line), as_json_document=json)


def discard(
    name: Name,
    version: Annotated[int, typer.Option("--version", "-v", min=0, help="The pending one if not given.")] = 0,
    json: Json = False,
) -> None:
    """Destroy the pending version."""
    with connected() as client:
        version = version or _pending(client.secrets.history(name), name)
        discarded = client.secrets.discard(name, version)
    line = f"{name}: version {version} is destroyed"
    print_message(discarded, lambda: typer.echo(line), as_json_document=json)


def rollback(
    name: Name,
    version: Annotated[int, typer.Option("--version", "-v", min=0, help="The previous one if not given.")] = 0,
    json: Json = False,
) -> None:
    """Write the value of an earlier version as a new one, unless somebody else writes at the same time."""
    with connected() as client:
        written = client.secrets.rollback(name, version)
    line = (
        f"wrote {name}, version {written.version}: the value of {f'version {version}' if version else 'the previous'}"
    )
    print_message(written, lambda: typer.echo(line), as_json_document=json)


def rm(name: Name, version: _Versions = None, yes: _Yes = False, provider: Provider = "", json: Json = False) -> None:
    """Delete a secret, or single versions of it. `strongroom secrets undelete` brings them back.

    With --provider it is deleted there alone, and for good.
    """
    if provider:
        _rm_there(name, provider, version=version, yes=yes, json=json)
        return
    what = _what(name, version)
    confirmed(f"Delete {what}?", yes=yes)
    with connected() as client:
        gone = client.secrets.delete(name, version or ())
    hint = f"strongroom secrets undelete {name}{''.join(f' --version {number}' for number in version or ())}"
    print_message(gone, lambda: typer.echo(f"deleted {what}; back with: {hint}"), as_json_document=json)


def _rm_there(name: str, provider: str, *, version: list[int] | None, yes: bool, json: bool) -> None:
    if version:
        misused("--provider does not go with --version")
    confirmed(f"Delete {name} with all of its versions from {provider} for good?", yes=yes)
    with connected() as client:
        gone = client.providers.at(provider).delete(name)
    print_message(gone, lambda: typer.echo(f"deleted {name} from {provider}"), as_json_document=json)


def undelete(name: Name, version: _Versions = None, json: Json = False) -> None:
    """Bring back a deleted secret, or single deleted versions of it."""
    with connected() as client:
        back = client.secrets.undelete(name, version or ())
    line = f"{_what(name, version)} is back"
    print_message(back, lambda: typer.echo(line), as_json_document=json)


def destroy(
    name: Name,
    version: _Versions = None,
    all_: Annotated[bool, typer.Option("--all", help="The secret, with all versions and its key.")] = False,
    yes: _Yes = False,
    json: Json = False,
) -> None:
    """Destroy single versions, or with --all a secret: for good."""
    if all_ == bool(version):
        misused("say what goes: --version N, or --all")
    confirmed(f"Destroy {_what(name, version)} for good?", yes=yes)
    with connected() as client:
        gone = client.secrets.destroy(name, version or ())
    line = f"destroyed {name}: {counted(gone.destroyed_versions, 'version')}"
    print_message(gone, lambda: typer.echo(line), as_json_document=json)


def _what(name: str, versions: list[int] | None) -> str:
    return f"{name}, version {', '.join(map(str, versions))}" if versions else name


def _pending(versions: "Sequence[SecretVersion]", name: str) -> int:
    pending = next((version.version for version in versions if version.stage == "pending"), 0)
    return pending or fail(f"secret {name} has no pending version")
