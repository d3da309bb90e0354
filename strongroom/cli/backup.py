"""`strongroom admin backup` and `restore`: everything in one encrypted file."""

import json as json_module
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.access_code import from_file
from strongroom.cli.session import OwnJson, complain, counted, fail, human_size, misused, print_json

if TYPE_CHECKING:
    from strongroom.local.backup import Report

DataDir = Annotated[
    Path, typer.Option(envvar="STRONGROOM_DATA_DIR", help="Where keys, databases and weights are kept.")
]
PassphraseFile = Annotated[
    str | None, typer.Option("--passphrase-file", metavar="FILE", help="The passphrase is in this file ('-': stdin).")
]


def backup(
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    data_dir: DataDir = Path(".strongroom"),
    passphrase_file: PassphraseFile = None,
    recipients: Annotated[
        list[str] | None, typer.Option("--recipient", help="Encrypt to this key instead: age1… or an SSH public key.")
    ] = None,
    weights: Annotated[bool, typer.Option(help="Include the weights in the data directory.")] = True,
    root_key: Annotated[bool, typer.Option(help="Include the root key, if it is a file.")] = True,
    json: OwnJson = False,
) -> None:
    """Back up the installation in a data directory, while it runs, to one encrypted file.

    Example: strongroom admin backup /backups/monday --recipient age1…
    """
    from datetime import UTC, datetime
    from importlib.metadata import version

    from strongroom.local import backup as local
    from strongroom.local.backup_format import Lock
    from strongroom.local.errors import BackupError

    if bool(recipients) == bool(passphrase_file):
        misused("say to what it is encrypted: --passphrase-file FILE or --recipient KEY")
    lock = Lock(from_file(passphrase_file, "passphrase") or "", tuple(recipients or ()))
    options = local.Options(data_dir, file, weights, root_key)
    try:
        report = local.backup(options, os.environ, lock, datetime.now(UTC), version("strongroom"))
    except BackupError as error:
        fail(str(error))
    _tell("backed up", report, as_json=json)
    if not report.has_root_key or report.root_keys != ("file",):
        complain(f"it opens with the root key {', '.join(report.root_keys)} alone: keep that one too", 0)


def restore(
    file: Annotated[Path, typer.Argument(help="The backup.")],
    data_dir: DataDir = Path(".strongroom"),
    passphrase_file: PassphraseFile = None,
    identity_file: Annotated[
        str | None,
        typer.Option("--identity-file", metavar="FILE", help="The key that belongs to the recipient is in this file."),
    ] = None,
    json: OwnJson = False,
) -> None:
    """Restore a backup into a data directory that is empty or not there, and a database that is empty.

    STRONGROOM_DATABASE_URL says which database; it may be of another kind than the one that was backed up.
    Example: strongroom admin restore /backups/monday --identity-file key.txt --data-dir .strongroom
    """
    from strongroom.local import restore as local
    from strongroom.local.backup_format import Key
    from strongroom.local.errors import BackupError

    if bool(identity_file) == bool(passphrase_file):
        misused("say what opens it: --passphrase-file FILE or --identity-file FILE")
    identity = ""
    if identity_file:
        try:
            identity = Path(identity_file).read_text()
        except (OSError, UnicodeDecodeError):
            misused("the file of the identity can't be read")
    key = Key(from_file(passphrase_file, "passphrase") or "", identity)
    try:
        report = local.restore(local.Options(data_dir, file), os.environ, key)
    except BackupError as error:
        fail(str(error))
    _tell("restored", report, as_json=json)
    if not report.has_root_key:
        complain(f"put the root key {', '.join(report.root_keys)} back before the start", 0)


def _tell(what: str, report: "Report", *, as_json: bool) -> None:
    if as_json:
        print_json(json_module.loads(json_module.dumps(asdict(report))))
        return
    weights = f"{counted(report.weights, 'file')} of weights, {human_size(report.weight_bytes)}"
    typer.echo(f"{what}: the databases and {weights}")
