"""`alias`, `stage`, `tag`, `card`, `lineage`, `search`: what is said about models and versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli import completion
from strongroom.cli.markdown import read_markdown
from strongroom.cli.names import check_name, split
from strongroom.cli.session import (
    Json,
    Manager,
    as_json,
    connected,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)

if TYPE_CHECKING:
    from strongroom.models.v1.catalog_pb2 import Parent

Model = Annotated[str, typer.Argument(metavar="NAME", help="A model.", autocompletion=completion.models)]
Version = Annotated[
    str, typer.Argument(metavar="NAME@VERSION", help="A version; or NAME:ALIAS.", autocompletion=completion.references)
]
Either = Annotated[
    str,
    typer.Argument(metavar="NAME[@VERSION]", help="A model, or a version of it.", autocompletion=completion.references),
]


def alias(
    name: Model,
    alias: Annotated[str, typer.Argument(metavar="[ALIAS]", help="The alias.", autocompletion=completion.aliases)] = "",
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", help="The version it shall name.", autocompletion=completion.versions)
    ] = "",
    delete: Annotated[bool, typer.Option("--delete", help="Remove the alias; its version stays.")] = False,
    if_better: Annotated[
        str, typer.Option(metavar="METRIC", help="Only if the version beats the one it names now in this metric.")
    ] = "",
    etag: Annotated[str, typer.Option(help="Only if nobody has changed it since it was read; 0: if it is new.")] = "",
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Point an alias to a version; list a model's aliases; or remove one.

    Example: strongroom alias scorer champion v2 --if-better accuracy
    """
    check_name(name)
    if delete == bool(version) or (not alias and (version or delete)):
        if alias or delete:
            misused("give NAME ALIAS VERSION to set an alias, NAME ALIAS --delete to remove it, NAME to list them")
        _list_aliases(name, manager, json=json)
        return
    with connected() as client:
        if delete:
            answer = client.aliases.delete(name, alias, manager=manager, etag=etag)
            line = f"{name}:{alias} no longer names {answer.version}"
        else:
            answer = client.aliases.set(name, alias, version, manager=manager, etag=etag, if_better=if_better)
            before = f" (was {answer.previous_version})" if answer.previous_version else ""
            line = f"{name}:{alias} names {answer.version}{before}"
    print_message(answer, lambda: say(line), as_json_document=json)


def _list_aliases(name: str, manager: str, *, json: bool) -> None:
    with connected() as client:
        found = list(client.aliases.list(name, manager=manager))
    if json:
        print_json({"aliases": [as_json(item) for item in found], "next_page_token": ""})
    else:
        rows = [[item.alias, item.version, moment(item.updated_at), item.updated_by] for item in found]
        print_table(["alias", "version", "updated", "by"], rows)


def stage(
    reference: Version,
    stage: Annotated[
        str,
        typer.Argument(help="none, development, staging, production or archived.", autocompletion=completion.stages),
    ],
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Move a version to a stage.

    Example: strongroom stage scorer@v2 production
    """
    wanted = split(reference)
    with connected() as client:
        answer = client.catalog.set_stage(wanted.name, wanted.resolved(client, manager), stage, manager=manager)
    line = f"{wanted.name}@{answer.version} is at stage {answer.stage}"
    print_message(answer, lambda: say(line), as_json_document=json)


def tag(
    reference: Either,
    tags: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="Tags to set.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEY", help="A tag to remove; may be repeated.")] = None,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Set and remove tags of a model or of a version. Without any, show them.

    Example: strongroom tag scorer@v2 team=risk seed=7
    """
    _annotate(reference, manager, json=json, tags=_pairs(tags or []), remove_tags=remove or [])


def card(
    reference: Either,
    file: Annotated[Path | None, typer.Argument(help="A Markdown file of at most 64 KiB.")] = None,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Set the card of a model or of a version. Without a file, show it.

    Example: strongroom card scorer README.md
    """
    if file is not None:
        _annotate(reference, manager, json=json, card=read_markdown(file))
        return
    wanted = split(reference)
    with connected() as client:
        if wanted.named:
            shown: Any = client.models.show(wanted.name, wanted.resolved(client, manager), manager=manager)
        else:
            shown = client.catalog.model(wanted.name, manager=manager)
    print_message(shown, lambda: _say_lines(shown.card), as_json_document=json)


def lineage(
    reference: Version,
    parents: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="[RELATIONSHIP=]PARENT",
            help="NAME@VERSION or an address; repeat it. Replaces all.",
            autocompletion=completion.versions_of_models,
        ),
    ] = None,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Show what a version was made from and what was made from it; with --from, say what it was made from.

    Example: strongroom lineage scorer@v2 --from fine-tuned-from=scorer@v1 --from trained-on=s3://data/2026
    """
    wanted = split(reference)
    with connected() as client:
        version = wanted.resolved(client, manager)
        answer: Any
        if parents:
            answer = client.catalog.set_parents(wanted.name, version, map(_parent, parents), manager=manager)
        else:
            answer = client.catalog.lineage(wanted.name, version, manager=manager)
    called = {n.id: n.uri or f"{n.model_name}@{n.version}{' (deleted)' if n.deleted else ''}" for n in answer.nodes}
    rows = [[called[edge.source], edge.relationship, called[edge.target]] for edge in answer.edges]
    print_message(answer, lambda: print_table(["from", "relationship", "to"], rows), as_json_document=json)


def search(
    regex: Annotated[str, typer.Argument(help="A regular expression (RE2) in NAME@VERSION or card.")] = "",
    query: Annotated[str, typer.Option(help="Text in name or card, in whatever case.")] = "",
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="May be repeated.")] = None,
    stage: Annotated[str, typer.Option(help="At this stage.", autocompletion=completion.stages)] = "",
    models: Annotated[bool, typer.Option("--models", help="Find models instead of versions.")] = False,
    manager: Manager = "default",
    json: Json = False,
) -> None:
    """Find versions, or models.

    Example: strongroom search '^scorer' --tag team=risk --stage production
    """
    wanted: dict[str, Any] = {"regex": regex, "query": query, "tags": _pairs(tags or []), "manager": manager}
    found: list[Any]
    with connected() as client:
        if models:
            found = list(client.catalog.search_models(**wanted))
            rows = [[m.name, m.latest_version, _spelled(m.tags)] for m in found]
            header, key = ["model", "latest", "tags"], "models"
        else:
            found = list(client.catalog.search_versions(**wanted, stage=stage))
            rows = [[f"{v.model_name}@{v.version}", v.stage, ", ".join(v.aliases), _spelled(v.tags)] for v in found]
            header, key = ["version", "stage", "aliases", "tags"], "versions"
    if json:
        print_json({key: [as_json(item) for item in found], "next_page_token": ""})
    else:
        print_table(header, rows)


def _annotate(reference: str, manager: str, *, json: bool, **changes: Any) -> None:
    wanted = split(reference)
    changed = any(changes.values()) or "card" in changes
    with connected() as client:
        answer: Any
        if wanted.named:
            version = wanted.resolved(client, manager)
            if changed:
                answer = client.catalog.update_version(wanted.name, version, manager=manager, **changes)
            else:
                answer = client.models.show(wanted.name, version, manager=manager)
        elif changed:
            answer = client.catalog.update_model(wanted.name, manager=manager, **changes)
        else:
            answer = client.catalog.model(wanted.name, manager=manager)
    rows = [[name, value] for name, value in sorted(answer.tags.items())]
    print_message(answer, lambda: print_table(["tag", "value"], rows), as_json_document=json)


def _say_lines(text: str) -> None:
    for line in text.splitlines():
        say(line)


def _pairs(tags: list[str]) -> dict[str, str]:
    for text in tags:
        if not text.partition("=")[0] or "=" not in text:
            misused(f"{text!r} is no tag; one looks like team=risk")
    return {name: value for name, _, value in (text.partition("=") for text in tags)}


def _spelled(tags: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(tags.items()))


def _parent(text: str) -> "Parent":
    from strongroom.models.v1.catalog_pb2 import Parent

    relationship, equals, named = text.partition("=")
    if not equals or "/" in relationship or "@" in relationship:
        relationship, named = "made-from", text
    if "://" in named:
        return Parent(uri=named, relationship=relationship)
    wanted = split(named)
    if wanted.alias:
        misused(f"{named!r}: name a parent by its version, which stays")
    return Parent(model_name=wanted.name, version=wanted.version, relationship=relationship)
