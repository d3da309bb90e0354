"""`strongroom prepare`, `strongroom probe` and `strongroom pki keep`: what containers need beside the parts."""

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from strongroom.cli.session import fail, misused, say


def prepare(
    folder: Annotated[Path, typer.Argument(help="Where the secrets are kept.")],
    owner: Annotated[str, typer.Option(metavar="UID:GID", help="Whose they are to be; only root can say.")] = "",
    volume: Annotated[list[Path] | None, typer.Option(help="A folder to give to the owner.")] = None,
) -> None:
    """Make what is missing of the keys, passwords and certificates that docker-compose.yml mounts."""
    from strongroom.local.deployment import Deployment, Owner

    user, _, group = owner.partition(":")
    if owner and not (user.isdecimal() and group.isdecimal()):
        misused(f"{owner!r} is no UID:GID")
    deployment = Deployment(folder, datetime.now(UTC), Owner(int(user), int(group)) if owner else None)
    os.umask(0o077)
    try:
        made = deployment.make()
        deployment.volumes(volume or [])
    except OSError as error:
        fail(f"{error.filename or folder} can't be made: {error.strerror}")
    say(f"made {', '.join(made)}" if made else "everything is there")
    say(f"the administrator's key is in {folder / 'admin.key'}. Keep a copy of {folder}: without it nothing opens")


def probe(part: Annotated[str, typer.Argument(help="gateway | auth | models | secrets")]) -> None:
    """Say by the exit status whether the part that runs here is healthy: for a container's health check."""
    from strongroom.local.errors import StartError
    from strongroom.local.probing import PARTS, is_healthy

    if part not in PARTS:
        misused(f"{part!r} is none of {', '.join(PARTS)}")
    try:
        healthy = is_healthy(part, os.environ)
    except (StartError, ValueError) as error:
        misused(str(error))
    if not healthy:
        fail(f"{part} is not healthy")


def keep(
    folder: Annotated[Path, typer.Argument(help="Where the authority is kept; made if it is not there.")],
    parts: Annotated[Path, typer.Argument(help="Where each part has a folder of its own, which is given to it alone.")],
    public_url: Annotated[str, typer.Option(envvar="STRONGROOM_PUBLIC_URL", help="Where callers reach it.")] = "",
) -> None:
    """Make certificates, make them anew in time, and give each part its own, until Ctrl-C or SIGTERM."""
    from strongroom.local.errors import StartError
    from strongroom.local.handing_out import LOOK_SECONDS, RENEWAL_SECONDS, HandOut
    from strongroom.local.pki import LOCAL_HOSTS, Pki

    # The first process of a container is ended by no signal that it has no answer to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.umask(0o077)
    pki, renewed_at = Pki(folder.absolute()), 0.0
    hand_out = HandOut(pki, parts.absolute())
    try:
        if not pki.exists:
            named = urlsplit(public_url).hostname
            pki.init(list(dict.fromkeys([*([named] if named else []), *LOCAL_HOSTS])))
        while True:
            if time.monotonic() - renewed_at >= RENEWAL_SECONDS:
                pki.renew()
                renewed_at = time.monotonic()
            if changed := hand_out.once():
                say(f"gave {', '.join(changed)}")
            time.sleep(LOOK_SECONDS)
    except StartError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename} can't be given: {error.strerror}")
