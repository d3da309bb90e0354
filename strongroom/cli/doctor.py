"""`strongroom doctor`: what is wrong, and what to do."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.session import OwnJson, fail, print_json, say

if TYPE_CHECKING:
    from strongroom.doctor.findings import Finding

_MARKS = {"ok": "ok  ", "skipped": "-   ", "warning": "warn", "failure": "FAIL"}


def doctor(
    data_dir: Annotated[Path, typer.Option(envvar="STRONGROOM_DATA_DIR", help="A data directory here.")] = Path(
        ".strongroom"
    ),
    json: OwnJson = False,
) -> None:
    """Look at what commonly goes wrong, here and at STRONGROOM_URL; exit status 1 if something does not work."""
    from strongroom.doctor.findings import works

    findings = []
    for finding in _findings(data_dir):
        findings.append(finding)
        if not json:
            say(f"{_MARKS[finding.level]}  {finding.subject}: {finding.message}")
            if finding.advice:
                say(f"      → {finding.advice}")
    good = works(findings)
    if json:
        shown = [{name: str(value) for name, value in vars(finding).items()} for finding in findings]
        print_json({"works": good, "findings": shown})
    if not good:
        fail("something does not work: what stands behind FAIL says what to do")


def _findings(data_dir: Path) -> Iterator["Finding"]:
    from strongroom import profiles
    from strongroom.cli.session import client_of
    from strongroom.doctor import here, there
    from strongroom.doctor.findings import failure, skipped
    from strongroom.errors import StrongroomError

    if data_dir.is_dir():
        try:
            yield from here.look(data_dir)
        except PermissionError as error:
            yield skipped(
                "data directory", f"{error.filename} is another user's", "Run this as the user of Strongroom."
            )
    with ExitStack() as stack:
        try:
            profile = profiles.current()
            client = stack.enter_context(client_of(profile))
        except StrongroomError as error:
            yield failure("profile", error.message, "strongroom login")
            return
        yield from there.look(client, profile.url, version("strongroom"), lambda: datetime.now(UTC))
