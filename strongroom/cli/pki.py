"""`strongroom pki`: the certificates of this installation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.session import OwnJson, fail, print_json, print_table, say

if TYPE_CHECKING:
    from strongroom.local.pki import Pki

app = typer.Typer(
    help="Certificates for the gateway and between the parts, of an authority of your own.", no_args_is_help=True
)

DataDir = Annotated[
    Path,
    typer.Option(envvar="STRONGROOM_DATA_DIR", help="The data directory; the certificates are in its folder pki."),
]
Folder = Annotated[
    Path | None, typer.Option("--folder", envvar="STRONGROOM_PKI_DIR", help="The folder, if it is another.")
]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A name or address under which callers reach the gateway; repeatable."),
]
_DATA_DIR = Path(".strongroom")


@app.command("init")
def init(data_dir: DataDir = _DATA_DIR, folder: Folder = None, host: Hosts = None) -> None:
    """Make an authority, a certificate for the gateway and one for each part.

    The next `strongroom up` then serves https, and its parts show each other certificates. Callers trust `ca.pem`:
    STRONGROOM_CA_FILE, or --ca-file of `strongroom login`.

    Example: strongroom pki init --host strongroom.example.org --host localhost
    """
    with _certificates(data_dir, folder) as pki:
        pki.init(host or ())
    say(f"made the certificates in {pki.folder}; callers trust {pki.authorities}")


@app.command("rotate")
def rotate(
    data_dir: DataDir = _DATA_DIR,
    folder: Folder = None,
    host: Hosts = None,
    authority: Annotated[
        bool, typer.Option("--authority", help="A new authority too. Callers need the new ca.pem within 30 days.")
    ] = False,
    distrust: Annotated[
        bool, typer.Option("--distrust", help="The old authority is trusted no longer: its key has leaked.")
    ] = False,
) -> None:
    """New keys and certificates. Parts that run take them within a second, and no request is lost."""
    if distrust and not authority:
        fail("--distrust needs --authority", status=2)
    with _certificates(data_dir, folder) as pki:
        if authority:
            pki.rotate_authority(host or (), distrust=distrust)
        else:
            pki.rotate(host or ())
    say(f"rotated the certificates in {pki.folder}")


@app.command("show")
def show(data_dir: DataDir = _DATA_DIR, folder: Folder = None, json: OwnJson = False) -> None:
    """Say whose certificates there are, for which names, and until when; exit status 1 if one is of no use."""
    with _certificates(data_dir, folder) as pki:
        shown = pki.show()
    if json:
        keys = ("holder", "names", "expires", "problem")
        values = [(one.holder, list(one.names), one.expires.isoformat(), one.note) for one in shown]
        print_json({"certificates": [dict(zip(keys, value, strict=True)) for value in values]})
    else:
        rows = [[one.holder, " ".join(one.names), f"{one.expires:%Y-%m-%d %H:%M}", one.note or "good"] for one in shown]
        print_table(["Holder", "Names", "Until (UTC)", "State"], rows)
    if any(one.note for one in shown):
        raise typer.Exit(1)


@contextmanager
def _certificates(data_dir: Path, folder: Path | None) -> Iterator["Pki"]:
    """The certificates of a folder. What can't be done ends the command with one line."""
    from strongroom.certificates import CertificateError
    from strongroom.local.errors import StartError
    from strongroom.local.pki import Pki

    try:
        yield Pki((folder or data_dir / "pki").absolute())
    except (StartError, CertificateError) as error:
        fail(str(error))
