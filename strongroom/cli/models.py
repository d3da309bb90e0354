"""`push`, `pull`, `ls`, `show`, `verify`, `rm`: models and their versions."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from strongroom.cli import completion
from strongroom.cli.access_code import AccessCodeFile, from_file
from strongroom.cli.names import LATEST, check_name, split
from strongroom.cli.session import (
    Json,
    Manager,
    as_json,
    complain,
    confirmed,
    connected,
    counted,
    human_size,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
    waits_told,
)

T = TypeVar("T")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION|:ALIAS]",
        help="A model; without a version its newest.",
        autocompletion=completion.references,
    ),
]
Exact = Annotated[
    str,
    typer.Argument(metavar="NAME@VERSION", help="A version of a model.", autocompletion=completion.versions_of_models),
]


def push(
    name: Annotated[
        str,
        typer.Argument(help="Name of the model: letters, digits, '.', '_' and '-'.", autocompletion=completion.models),
    ],
    path: Annotated[str, typer.Argument(help="File or folder to push.")],
    version: Annotated[str, typer.Option("--version", "-v", help="Name of the version; the time if not given.")] = "",
    manager: Manager = "default",
    access_code_file: AccessCodeFile = None,
    alias: Annotated[
        str, typer.Option("--alias", "-a", help="Then point this alias to it.", autocompletion=completion.aliases)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much would be sent.")] = False,
    compression_level: Annotated[
        int, typer.Option(min=0, max=9, help="Compress what shrinks: 1 is fastest, 9 smallest, 0 none.")
    ] = 0,
    json: Json = False,
) -> None:
    """Push a file or folder as a new version. Sends only what the manager lacks; run again, it resumes.

    With --access-code-file the version is protected: nobody reads it without the code, administrators neither.

    Example: strongroom push scorer model.safetensors --version v1
    """
    check_name(name)
    _check_path(path)
    code = from_file(access_code_file)
    with connected() as client:
        if dry_run:
            plan = client.models.plan_push(name, path, manager=manager)
            answer = {"total_bytes": plan.total, "bytes_to_send": plan.total - plan.done}
            line = f"would send {human_size(plan.total - plan.done)} of {human_size(plan.total)}"
            print_json(answer) if json else typer.echo(line)
            return
        push = partial(
            client.models.push,
            name,
            path,
            version=version,
            manager=manager,
            compression_level=compression_level,
            access_code=code,
        )
        result = _transferred(f"push {name}", push)
        shown = result.version
        if alias:
            client.aliases.set(name, alias, shown.version, manager=manager)
            shown.aliases.append(alias)
        sent = "" if result.bytes_sent >= shown.size_bytes else f", {human_size(result.bytes_sent)} sent"
        named = f", {name}:{alias} names it" if alias else ""
        line = f"pushed {name}@{shown.version}: {_files(shown)}, {human_size(shown.size_bytes)}{sent}{named}"
        print_message(shown, lambda: typer.echo(line), as_json_document=json)


def pull(
    reference: Reference,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="File, or folder (several files need one).")],
    manager: Manager = "default",
    provider: Annotated[str, typer.Option("--from", help="The store to read first; others where it fails.")] = "",
    access_code_file: AccessCodeFile = None,
    tensor: Annotated[str, typer.Option("--tensor", help="Only this tensor, as a safetensors file at DEST.")] = "",
    file: Annotated[str, typer.Option("--file", help="The file that holds the tensor, if not the only one.")] = "",
    json: Json = False,
) -> None:
    """Pull a version and check every byte of it. Run again, it resumes.

    A single file goes to DEST, unless that is a folder or ends in '/'.

    Example: strongroom pull scorer@v1 model.safetensors
    """
    wanted = split(reference)
    name = wanted.name
    _check_path(destination)
    if file and not tensor:
        misused("--file names the file of a --tensor")
    code = from_file(access_code_file)
    with connected() as client:
        version = wanted.resolved(client, manager)
        if tensor:
            from strongroom.pull import save_tensor

            read = partial(client.models.tensor, name, tensor, path=file, version=version, manager=manager)
            found = read(provider=provider, access_code=code)
            save_tensor(found, destination)
            answer = {"tensor": tensor, "dtype": found.dtype, "shape": list(found.shape), "bytes": len(found.data)}
            line = f"pulled {tensor} of {reference}: {found.dtype} {list(found.shape)}, {human_size(len(found.data))}"
            print_json(answer) if json else typer.echo(line)
            return
        pull = partial(client.models.pull, name, destination, version=version, manager=manager)
        pull = partial(pull, provider=provider, access_code=code)
        result = _transferred(f"pull {reference}", pull)
        shown = result.version
        line = f"pulled {name}@{shown.version}: {_files(shown)}, {human_size(shown.size_bytes)}, verified"
        print_message(shown, lambda: typer.echo(line), as_json_document=json)


def ls(
    name: Annotated[
        str | None, typer.Argument(help="A model, to list its versions.", autocompletion=completion.models)
    ] = None,
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
            rows = [_row(v) for v in versions]
            header = ["version", "size", "files", "created", "stage", "aliases", "tags"]
            answer = {"versions": [as_json(v) for v in versions]}
    if json:
        print_json(answer | {"next_page_token": ""})
    elif rows or name or not sys.stdout.isatty():
        print_table(header, rows)
    else:
        typer.echo("No models yet. Push one: strongroom push NAME PATH")


def show(
    reference: Reference, manager: Manager = "default", access_code_file: AccessCodeFile = None, json: Json = False
) -> None:
    """Show a version and its files."""
    wanted = split(reference)
    name = wanted.name
    code = from_file(access_code_file)
    with connected() as client:
        shown = client.models.show(name, wanted.resolved(client, manager), manager=manager, access_code=code)

    def for_people() -> None:
        typer.echo(
            f"{name}@{shown.version}  {human_size(shown.size_bytes)}  {moment(shown.created_at)}  {shown.created_by}"
        )
        for what, said in _said(shown):
            say(f"{what}: {said}")
        rows = [[file.path, human_size(file.size_bytes), _sha256(file)] for file in shown.files]
        print_table(["file", "size", "sha256"], rows)

    print_message(shown, for_people, as_json_document=json)


def verify(
    reference: Reference, manager: Manager = "default", access_code_file: AccessCodeFile = None, json: Json = False
) -> None:
    """Have the server check every stored byte of a version."""
    wanted = split(reference)
    name = wanted.name
    code = from_file(access_code_file)
    with connected() as client:
        report = client.models.verify(name, wanted.resolved(client, manager), manager=manager, access_code=code)

    def for_people() -> None:
        checked = f"{counted(report.files_checked, 'file')}, {human_size(report.bytes_checked)}"
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
    primary_only: Annotated[
        bool, typer.Option("--primary-only", help="In the primary store alone: replicas keep it.")
    ] = False,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Delete a version and destroy its key: for good."""
    wanted = split(reference)
    name, version = wanted.name, wanted.version
    if version == LATEST:
        misused(f"name the version to delete: strongroom rm {name}@VERSION")
    confirmed(f"Delete {name}@{version} {'in the primary' if primary_only else 'for good'}?", yes=yes)
    with connected() as client:
        gone = client.models.delete(name, version, manager=manager, primary_only=primary_only)
    shared = f", {gone.shared_chunks} shared with others kept" if gone.shared_chunks else ""
    if gone.primary_only:
        line = f"deleted {name}@{version} in the primary; replicas keep it"
        print_message(gone, lambda: typer.echo(line), as_json_document=json)
        return
    line = f"deleted {name}@{version}: {counted(gone.shredded_chunks, 'chunk')} shredded{shared}"
    print_message(gone, lambda: typer.echo(line), as_json_document=json)


def _check_path(path: str) -> None:
    """A variable that is not set would otherwise stand for the current folder."""
    if not path:
        misused("the path is empty")


def _row(version: Any) -> list[str]:
    told = [version.version, human_size(version.size_bytes), _files(version), moment(version.created_at)]
    said = dict(_said(version))
    return [*told, said.get("stage", ""), said.get("aliases", ""), said.get("tags", "")]


def _said(version: Any) -> list[tuple[str, str]]:
    """What is said about a version, of what there is."""
    said = [
        ("stage", "" if version.stage == "none" else version.stage),
        ("aliases", ", ".join(version.aliases)),
        ("tags", ", ".join(f"{name}={value}" for name, value in sorted(version.tags.items()))),
        ("metrics", ", ".join(f"{name}={value:g}" for name, value in sorted(version.metrics.items()))),
    ]
    return [(what, text) for what, text in said if text]


def _files(version: Any) -> str:
    return counted(version.files_count, "file")


def _sha256(file: Any) -> str:
    return str(file.sha256) if file.sha256_verified else f"{file.sha256} (claimed, not yet verified)"


def _unseen(_progress: Any) -> None:
    """Where nobody looks at a bar."""


def _transferred(title: str, transfer: Callable[..., T]) -> T:
    """What the transfer returns, called with its `progress`: a bar on standard error if that is a terminal.

    It runs in a thread of its own, as Ctrl-C reaches the main thread between any two instructions, and there it would
    leave locks of gRPC's taken. Interrupted, the transfer ends like one that is killed: made to go on.
    """
    from strongroom.persevere import log

    try:
        with waits_told(log), _progress_bar(title) if sys.stderr.isatty() else nullcontext(_unseen) as report:
            return _beside(partial(transfer, progress=report))
    except KeyboardInterrupt:
        complain("interrupted. Run the same command again to go on where it was", 130)
        # Without the interpreter's end, which would wait for the thread.
        os._exit(130)


def _beside(work: Callable[[], T]) -> T:
    """What `work` returns or raises in another thread."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="transfer", daemon=True).start()
    return done.result()


@contextmanager
def _progress_bar(title: str) -> Iterator[Callable[[Any], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    # rich's own column of the speed has no binary units, in which all other sizes are printed.
    speed = TextColumn("{task.fields[speed]}", style="progress.data.speed")
    columns = (TextColumn(title), BarColumn(), DownloadColumn(binary_units=True), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, speed="?")

        def report(progress: Any) -> None:
            bar.update(task, total=progress.total, completed=progress.done)
            now = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, speed=f"{human_size(now)}/s" if now else "?")

        yield report
