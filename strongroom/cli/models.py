"""`push`, `pull`, `ls`, `show`, `verify`, `rm`: models and their versions."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom.cli.session import (
    Json,
    Manager,
    as_json,
    complain,
    confirmed,
    connected,
    fail,
    human_size,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LATEST = "latest"

Reference = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A model; without a version its newest.")]
Exact = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A version of a model.")]


def push(
    name: Annotated[str, typer.Argument(help="Name of the model: letters, digits, '.', '_' and '-'.")],
    path: Annotated[Path, typer.Argument(help="File or folder to push.")],
    version: Annotated[str, typer.Option("--version", "-v", help="Name of the version; the time if not given.")] = "",
    manager: Manager = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much would be sent.")] = False,
    json: Json = False,
) -> None:
    """Push a file or folder as a new version. Sends only what the manager lacks; run again, it resumes.

    Example: strongroom push scorer model.safetensors --version v1
    """
    _check_name(name)
    with connected() as client:
        if dry_run:
            plan = client.models.plan_push(name, path, manager=manager)
            answer = {"total_bytes": plan.total, "bytes_to_send": plan.total - plan.done}
            line = f"would send {human_size(plan.total - plan.done)} of {human_size(plan.total)}"
            print_json(answer) if json else typer.echo(line)
            return
        with _transfer(f"push {name}") as report:
            result = client.models.push(name, path, version=version, manager=manager, progress=report)
        shown = result.version
        sent = "" if result.bytes_sent >= shown.size_bytes else f", {human_size(result.bytes_sent)} sent"
        line = f"pushed {name}@{shown.version}: {_files(shown)}, {human_size(shown.size_bytes)}{sent}"
        print_message(shown, lambda: typer.echo(line), as_json_document=json)


def pull(
    reference: Reference,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="File, or folder (several files need one).")],
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Pull a version and check every byte of it. Run again, it resumes.

    A single file goes to DEST, unless that is a folder or ends in '/'.

    Example: strongroom pull scorer@v1 model.safetensors
    """
    name, version = _split(reference)
    with connected() as client:
        with _transfer(f"pull {reference}") as report:
            result = client.models.pull(name, destination, version=version, manager=manager, progress=report)
        shown = result.version
        line = f"pulled {name}@{shown.version}: {_files(shown)}, {human_size(shown.size_bytes)}, verified"
        print_message(shown, lambda: typer.echo(line), as_json_document=json)


def ls(
    name: Annotated[str | None, typer.Argument(help="A model, to list its versions.")] = None,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """List models, or the versions of one."""
    with connected() as client:
        if name is None:
            models = list(client.models.list(manager=manager))
            rows = [[m.name, m.latest_version, str(m.versions_count), moment(m.updated_at)] for m in models]
            header, answer = ["model", "latest", "versions", "updated"], {"models": [as_json(m) for m in models]}
        else:
            versions = list(client.models.versions(name, manager=manager))
            rows = [[v.version, human_size(v.size_bytes), _files(v), moment(v.created_at)] for v in versions]
            header, answer = ["version", "size", "files", "created"], {"versions": [as_json(v) for v in versions]}
    if json:
        print_json(answer | {"next_page_token": ""})
    elif rows or name or not sys.stdout.isatty():
        print_table(header, rows)
    else:
        typer.echo("No models yet. Push one: strongroom push NAME PATH")


def show(reference: Reference, manager: Manager = "default", json: Json = False) -> None:
    """Show a version and its files."""
    name, version = _split(reference)
    with connected() as client:
        shown = client.models.show(name, version, manager=manager)

    def for_people() -> None:
        typer.echo(
            f"{name}@{shown.version}  {human_size(shown.size_bytes)}  {moment(shown.created_at)}  {shown.created_by}"
        )
        rows = [[file.path, human_size(file.size_bytes), _sha256(file)] for file in shown.files]
        print_table(["file", "size", "sha256"], rows)

    print_message(shown, for_people, as_json_document=json)


def verify(reference: Reference, manager: Manager = "default", json: Json = False) -> None:
    """Have the server check every stored byte of a version."""
    name, version = _split(reference)
    with connected() as client:
        report = client.models.verify(name, version, manager=manager)

    def for_people() -> None:
        checked = f"{report.files_checked} files, {human_size(report.bytes_checked)}"
        if report.is_valid:
            typer.echo(f"{name}@{report.version} is intact: {checked}")
        for problem in report.problems:
            complain(f"{name}@{report.version}: {problem}", 1)

    print_message(report, for_people, as_json_document=json)
    if not report.is_valid:
        raise typer.Exit(1)


def rm(
    reference: Exact,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Delete a version and destroy its key: for good."""
    name, version = _split(reference)
    if version == _LATEST:
        misused(f"name the version to delete: strongroom rm {name}@VERSION")
    confirmed(f"Delete {name}@{version} for good?", yes=yes)
    with connected() as client:
        gone = client.models.delete(name, version, manager=manager)
    shared = f", {gone.shared_chunks} shared with others kept" if gone.shared_chunks else ""
    line = f"deleted {name}@{version}: {gone.shredded_chunks} chunks shredded{shared}"
    print_message(gone, lambda: typer.echo(line), as_json_document=json)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        misused(f"{name!r} is no name of a model: use 1 to 128 letters, digits, '.', '_' and '-'")


def _split(reference: str) -> tuple[str, str]:
    name, at, version = reference.partition("@")
    _check_name(name)
    if at and not _NAME.fullmatch(version):
        misused(f"{version!r} is no name of a version: use 1 to 128 letters, digits, '.', '_' and '-'")
    return name, version or _LATEST


def _files(version: Any) -> str:
    return "1 file" if version.files_count == 1 else f"{version.files_count} files"


def _sha256(file: Any) -> str:
    return str(file.sha256) if file.sha256_verified else f"{file.sha256} (claimed)"


@contextmanager
def _transfer(title: str) -> Iterator[Callable[[Any], None]]:
    """Yields what is to be called with the progress: a bar on standard error if that is a terminal."""
    try:
        if sys.stderr.isatty():
            with _progress_bar(title) as report:
                yield report
        else:
            yield lambda _progress: None
    except KeyboardInterrupt:
        fail("interrupted. Run the same command again to go on where it was", 130)


@contextmanager
def _progress_bar(title: str) -> Iterator[Callable[[Any], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda progress: bar.update(task, total=progress.total, completed=progress.done)
