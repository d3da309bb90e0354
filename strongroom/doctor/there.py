"""What an installation says of itself, to a caller with or without the right to hear all of it."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from strongroom.client import Client
from strongroom.doctor import rules
from strongroom.doctor.findings import Finding, failure, ok, skipped
from strongroom.errors import PermissionDenied, StrongroomError, Unauthenticated, Unavailable

_PARTS: dict[str, Callable[[Client], Iterable[Finding]]] = {
    "stores": lambda client: rules.stores(client.stores.show()),
    "providers": lambda client: rules.providers(client.providers.show()),
    "root key": lambda client: [rules.root_key(client.root_key.show())],
    "API keys": lambda client: [rules.keys(client.keys.ages().keys)],
}


def look(client: Client, url: str, version: str, now: Callable[[], datetime]) -> Iterator[Finding]:
    """What can be found out. Where nothing answers that is the one finding.

    Args:
        version: of this program.
        now: the clock of this machine.
    """
    asked = now()
    try:
        health = client.admin.health()
    except Unavailable as error:
        yield rules.unavailable(url, error)
        if not error.reason:
            return
    else:
        took = (now() - asked).total_seconds()
        yield ok("parts", f"{url} is healthy: {', '.join(sorted(health.checks))}")
        yield rules.versions(health.version, version)
        yield rules.clocks(health.timestamp - asked.timestamp(), took)
    try:
        caller = client.tokens.caller()
    except Unauthenticated as error:
        yield failure("credential", error.message, "Set STRONGROOM_API_KEY, or run: strongroom login")
        return
    except StrongroomError as error:
        yield failure("credential", error.message, "Auth judges it: see above, or logs/auth.log.")
        return
    yield ok("credential", f"you are {caller.name or caller.principal}")
    for subject, findings in _PARTS.items():
        yield from _asked(subject, findings, client)


def _asked(subject: str, findings: Callable[[Client], Iterable[Finding]], client: Client) -> Iterator[Finding]:
    try:
        yield from findings(client)
    except PermissionDenied as error:
        yield skipped(subject, error.message, "An administrator's key sees it.")
    except StrongroomError as error:
        yield failure(subject, error.message, "Mend what is told above, then look again.")
