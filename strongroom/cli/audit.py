"""`strongroom audit`: list, verify."""

import json as jsonlib
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from strongroom.cli import notation
from strongroom.cli.session import (
    Json,
    as_json,
    complain,
    connected,
    counted,
    misused,
    print_json,
    print_message,
    print_table,
    say,
    visible,
)

# Events may be written a little after they happened: refusals are counted first, and clocks differ.
_LATE = timedelta(minutes=2)
# Characters of a resource that fit a table.
_WIDTH = 80
# Seconds between two looks at the log.
_PAUSE = 2.0

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)


@app.command("list")
def list_events(
    principal: Annotated[str, typer.Option(help="Such as user:01J…, or a prefix that ends in *.")] = "",
    kind: Annotated[str, typer.Option(help="call, or an event such as auth.invalid_key.")] = "",
    method: Annotated[str, typer.Option(help="Such as CreateApiKey, or a prefix that ends in *.")] = "",
    resource: Annotated[str, typer.Option(help="Such as managers/fraud/*.")] = "",
    outcome: Annotated[str, typer.Option(help="allowed, denied or failed.")] = "",
    service: Annotated[str, typer.Option(help="auth, models or secrets.")] = "",
    request_id: Annotated[str, typer.Option(help="Of one request.")] = "",
    since: Annotated[str, typer.Option(help="A moment such as 2026-11-21T08:00, or 2h for two hours ago.")] = "",
    until: Annotated[str, typer.Option(help="A moment, or how long ago.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many events.")] = 100,
    json: Json = False,
) -> None:
    """List events, the latest first.

    Example: strongroom audit list --outcome denied --since 2h
    """
    with connected() as client:
        found = client.audit.list(
            principal=principal,
            kind=kind,
            method=method,
            resource=resource,
            outcome=outcome,
            service=service,
            request_id=request_id,
            since=_moment("--since", since),
            until=_moment("--until", until),
        )
        events = list(islice(found, limit))
    if json:
        print_json({"events": [as_json(event) for event in events], "next_page_token": ""})
    else:
        print_table(["when", "outcome", "who", "what", "on", "why"], map(_row, events))


@app.command()
def tail(
    principal: Annotated[str, typer.Option(help="Such as user:01J…, or a prefix that ends in *.")] = "",
    kind: Annotated[str, typer.Option(help="call, or an event such as auth.invalid_key.")] = "",
    outcome: Annotated[str, typer.Option(help="allowed, denied or failed.")] = "",
    service: Annotated[str, typer.Option(help="auth, models or secrets.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.")] = False,
) -> None:
    """Print events as they happen, until Ctrl-C.

    Example: strongroom audit tail --outcome denied
    """
    began = datetime.now(UTC)
    shown: set[str] = set()
    with connected() as client:
        while True:
            since = max(began, datetime.now(UTC) - _LATE)
            found = client.audit.list(principal=principal, kind=kind, outcome=outcome, service=service, since=since)
            for event in reversed([event for event in found if event.id not in shown]):
                shown.add(event.id)
                typer.echo(jsonlib.dumps(as_json(event)) if json else visible("  ".join(filter(None, _row(event)))))
            sys.stdout.flush()
            time.sleep(_PAUSE)


@app.command()
def verify(json: Json = False) -> None:
    """Recompute every chain of events: finds what was edited, deleted or moved. Exit status 1 if anything was."""
    with connected() as client:
        report = client.audit.verify()

    def for_people() -> None:
        for chain in report.chains:
            state = "intact" if chain.is_valid else "BROKEN"
            say(f"{chain.service} {chain.chain}: {state}, {counted(int(chain.events), 'event')}")
            for problem in chain.problems:
                complain(f"{chain.service} {chain.chain}: {problem}", 1)
        if report.is_valid:
            say("the audit log is intact")

    print_message(report, for_people, as_json_document=json)
    if not report.is_valid:
        raise typer.Exit(1)


def _moment(option: str, text: str, now: Callable[[], datetime] = datetime.now) -> datetime | None:
    """`2026-11-21`, `2026-11-21T08:00+01:00`, in local time if no zone is named; or `2h`, so long ago."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        pass
    if text[-1:] not in "smhd":
        misused(f"{option} {text!r} is no moment; one looks like 2026-11-21T08:00 or 2h")
    return now().astimezone() - timedelta(seconds=notation.seconds(option, text))


def _row(event: Any) -> list[str]:
    # Events of the log itself name a signature; whole it is in the JSON.
    resource = event.resource if len(event.resource) <= _WIDTH else f"{event.resource[:_WIDTH]}…"
    return [_when(event), event.outcome, _who(event), _what(event), resource, _why(event)]


def _when(event: Any) -> str:
    return f"{event.time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _who(event: Any) -> str:
    name = event.principal_name or event.principal
    return f"{name} ({event.key_prefix}…)" if event.key_prefix else name


def _what(event: Any) -> str:
    what = event.method.rpartition("/")[2] if event.kind == "call" else event.kind
    return f"{what} ×{event.count}" if event.count > 1 else what


def _why(event: Any) -> str:
    return event.reason or ("" if event.code in ("", "OK") else event.code)
