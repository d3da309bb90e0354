"""`strongroom secrets`: put, patch, get, list, search, ages, history, label."""

import json as jsonlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import providers, secret_files, secret_life
from strongroom.cli.secret_ages import ages
from strongroom.cli.secret_files import written
from strongroom.cli.secret_values import Expires, Fields, Labels, Name, Provider, expiry, given, labels_given, plain
from strongroom.cli.session import (
    Json,
    connected,
    fail,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)
from strongroom.cli.session import as_json as message_as_json

if TYPE_CHECKING:
    from strongroom.secrets.v1.secrets_pb2 import SecretSummary, SecretVersion

app = typer.Typer(help="Keep and read secrets.", no_args_is_help=True)

_FILE = typer.Option("--file", "-f", help="A JSON object; '-' is standard input.")


@app.command()
def put(
    name: Name,
    fields: Fields = None,
    file: Annotated[Path | None, _FILE] = None,
    expected_version: Annotated[
        int | None, typer.Option(help="Write only over this version; 0: only if there is none.", min=0)
    ] = None,
    label: Labels = None,
    expires: Expires = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Write a version that is not in use until it is promoted.")
    ] = False,
    provider: Provider = "",
    json: Json = False,
) -> None:
    """Write a new version of a secret, in place of all of its fields.

    What stands on a command line can be seen by others on the machine: prefer '-' or --file for what matters.

    Example: strongroom secrets put prod/db user=scorer password=-
    """
    if pending and (expected_version is not None or label):
        misused("--pending goes with neither --expected-version nor --label")
    if provider and (pending or label or expires):
        misused("--provider goes with none of --pending, --label and --expires")
    data, labels, expires_at = given(fields or [], file), labels_given(label), expiry(expires)
    with connected() as client:
        if provider:
            version = client.providers.at(provider).put(name, data, expected_version=expected_version)
        elif pending:
            version = client.secrets.stage(name, data, expires_at=expires_at)
        else:
            version = client.secrets.put(
                name, data, expected_version=expected_version, labels=labels, expires_at=expires_at
            )
    line = f"wrote {name}, version {version.revision or version.version}{' (pending)' * pending}"
    print_message(version, lambda: typer.echo(line), as_json_document=json)


@app.command()
def patch(
    name: Name,
    fields: Fields = None,
    file: Annotated[Path | None, _FILE] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", "-r", metavar="FIELD", help="Remove it.")] = None,
    json: Json = False,
) -> None:
    """Change, add or remove single fields; what others write at the same time is kept.

    Example: strongroom secrets patch prod/db password=- --remove old_password
    """
    changes = given(fields or [], file) if fields or file else {}
    if not changes and not remove:
        misused("give FIELD=VALUE pairs, or --remove FIELD")
    with connected() as client:
        version = client.secrets.patch(name, changes, remove=remove or ())
    line = f"wrote {name}, version {version.version}"
    print_message(version, lambda: typer.echo(line), as_json_document=json)


@app.command()
def get(
    name: Name,
    version: Annotated[int, typer.Option("--version", "-v", help="A version; the current one if not given.")] = 0,
    stage: Annotated[str, typer.Option("--stage", "-s", help="pending, current or previous.")] = "",
    field: Annotated[str | None, typer.Option("--field", "-k", help="Print the bare value of this field.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file, which only you can read.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    provider: Provider = "",
    revision: Annotated[str, typer.Option(help="A version, as --provider calls it.")] = "",
    json: Json = False,
) -> None:
    """Read a secret."""
    if (provider and stage) or (revision and not provider):
        misused("--provider does not go with --stage, and --revision goes with --provider alone")
    if version < 0:
        misused("versions count from 1")
    from strongroom.client.secrets import value_of

    with connected() as client:
        if provider:
            secret = client.providers.at(provider).get(name, version, revision=revision)
        else:
            secret = client.secrets.get(name, version, stage=stage)
    data, shown = value_of(secret), ""
    if json:
        shown = jsonlib.dumps(message_as_json(secret), indent=2, ensure_ascii=False)
    elif field is None:
        shown = "\n".join(f"{key}={plain(value)}" for key, value in sorted(data.items()))
    elif field not in data:
        fail(f"secret {name} has no field {field}; it has: {', '.join(sorted(data)) or 'none'}")
    elif isinstance(data[field], bytes):
        written(data[field], output, force=force)
        return
    else:
        shown = plain(data[field])
    written(f"{shown}\n".encode() if shown or field is not None else b"", output, force=force)


@app.command("list")
def list_secrets(
    prefix: Annotated[str, typer.Argument(help="Only names that begin with this.")] = "",
    folder: Annotated[
        bool, typer.Option("--folder", "-d", help="Only what stands directly in the folder, with its folders.")
    ] = False,
    tree: Annotated[bool, typer.Option("--tree", "-t", help="Draw folders as a tree.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="With deleted secrets among the others.")] = False,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY[=VALUE]", help="Only secrets with this label.")
    ] = None,
    provider: Provider = "",
    json: Json = False,
) -> None:
    """List secrets by name, in all folders, without values."""
    if provider and (folder or deleted or label):
        misused("--provider goes with none of --folder, --deleted and --label")
    if folder and (tree or deleted or label):
        misused("--folder goes with none of --tree, --deleted and --label")
    if folder:
        _show_folder(prefix, json=json)
        return
    with connected() as client:
        if provider:
            secrets = list(client.providers.at(provider).list(prefix))
        else:
            secrets = list(client.secrets.list(prefix, labels=label or (), show_deleted=deleted))
    if tree and not json:
        for line in _tree([secret.name for secret in secrets]):
            say(line)
    else:
        _show(secrets, json=json)


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD…", help="Parts of the name or of a label.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY[=VALUE]", help="Only secrets with this label.")
    ] = None,
    json: Json = False,
) -> None:
    """Find secrets in all folders by words in their names and labels, in any case. Values are not searched.

    Example: strongroom secrets search postgres --label team=fraud
    """
    if not words and not label:
        misused("give words, or --label")
    with connected() as client:
        found = list(client.secrets.list(query=" ".join(words or ()), labels=label or ()))
    _show(found, json=json)


@app.command()
def history(name: Name, provider: Provider = "", json: Json = False) -> None:
    """List the versions of a secret, without values."""
    with connected() as client:
        versions = client.providers.at(provider).history(name) if provider else client.secrets.history(name)
        about = {"name": name} if provider or not json else message_as_json(client.secrets.about(name))
    if json:
        listed = [message_as_json(version) for version in versions]
        print_json({"versions": listed, "next_page_token": "", "secret": about})
    else:
        rows = [
            [
                version.revision or str(version.version),
                moment(version.created_at),
                version.created_by,
                version.stage,
                _state(version),
            ]
            for version in versions
        ]
        print_table(["version", "created", "by", "stage", "state"], rows)


@app.command()
def label(
    name: Name,
    labels: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE…")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", "-r", metavar="KEY", help="Remove it.")] = None,
    expires: Expires = None,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="The current version stays valid.")] = False,
    json: Json = False,
) -> None:
    """Change the labels of a secret, and when its current version expires. Labels are no place for what is secret."""
    if expires and never_expires:
        misused("--expires does not go with --never-expires")
    added, expires_at = labels_given(labels), expiry(expires)
    with connected() as client:
        secret = client.secrets.edit(
            name,
            set_labels=added,
            remove_labels=remove or (),
            expires_at=expires_at,
            never_expires=never_expires,
        )
    print_message(secret, lambda: _show([secret], json=False), as_json_document=json)


_MORE: tuple[Callable[..., None], ...] = (
    *(secret_life.promote, secret_life.discard, secret_life.rollback),
    *(secret_life.rm, secret_life.undelete, secret_life.destroy),
    *(ages, providers.providers, providers.sync, providers.drift),
)
for command in _MORE:
    app.command()(command)
app.command("import")(secret_files.import_secrets)
app.command("export")(secret_files.export_secrets)


def _show(secrets: Iterable["SecretSummary"], *, json: bool) -> None:
    if json:
        print_json({"secrets": [message_as_json(secret) for secret in secrets], "next_page_token": "", "folders": []})
        return
    rows = [
        [
            secret.name,
            str(secret.current_version),
            moment(secret.updated_at),
            " ".join(f"{key}={value}" for key, value in sorted(secret.labels.items())),
            "deleted" if secret.HasField("deleted_at") else moment(secret.expires_at),
        ]
        for secret in secrets
    ]
    print_table(["name", "version", "updated", "labels", "expires"], rows)


def _show_folder(prefix: str, *, json: bool) -> None:
    with connected() as client:
        found = client.secrets.folder(prefix)
    if json:
        secrets = [message_as_json(secret) for secret in found.secrets]
        print_json({"secrets": secrets, "next_page_token": "", "folders": list(found.folders)})
    else:
        rows = [[name, "", ""] for name in found.folders]
        rows += [[secret.name, str(secret.current_version), moment(secret.updated_at)] for secret in found.secrets]
        print_table(["name", "version", "updated"], sorted(rows))


def _tree(names: Iterable[str]) -> list[str]:
    """Names in order, each folder before what is in it, indented by two a level."""
    lines: list[str] = []
    above: list[str] = []
    for name in names:
        *folders, last = name.split("/")
        common = next(
            (depth for depth, (one, other) in enumerate(zip(above, folders, strict=False)) if one != other),
            min(len(above), len(folders)),
        )
        lines += [f"{'  ' * depth}{folder}/" for depth, folder in enumerate(folders) if depth >= common]
        lines.append(f"{'  ' * len(folders)}{last}")
        above = folders
    return lines


def _state(version: "SecretVersion") -> str:
    if version.HasField("destroyed_at"):
        return "destroyed"
    if version.HasField("deleted_at"):
        return "deleted"
    return f"expires {moment(version.expires_at)}" if version.HasField("expires_at") else ""
