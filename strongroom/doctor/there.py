"""What an installation says of itself, to a caller with or without the right to hear all of it."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from strongroom.client import Client
from strongroom.doctor.findings import Finding, failure, ok, skipped, warning
from strongroom.errors import PermissionDenied, StrongroomError, Unauthenticated, Unavailable

# Tokens are good for as little as a minute, and verified with five seconds of grace.
_SKEW_SECONDS = 5.0
# Replicas are given what they lack within seconds.
_LAG_SECONDS = 60.0

_Look = Callable[[Client], Iterable[Finding]]


def look(client: Client, url: str, version: str, now: Callable[[], datetime]) -> Iterator[Finding]:
    """What can be found out. Where nothing answers that is the one finding.

    Args:
        version: of this program.
        now: the clock of this machine.
    """
    try:
        asked = now()
        health = client.admin.health()
        took = (now() - asked).total_seconds()
    except Unavailable as error:
        yield _unavailable(url, error)
        if not error.reason:
            return
    else:
        parts = ", ".join(sorted(health.checks))
        yield ok("parts", f"{url} is healthy: {parts}")
        yield _versions(health.version, version)
        yield _clocks((health.timestamp.ToDatetime(UTC) - asked).total_seconds(), took)
    try:
        caller = client.tokens.caller()
    except Unauthenticated as error:
        yield failure("credential", error.message, "Set STRONGROOM_API_KEY, or run: strongroom login")
        return
    except StrongroomError as error:
        yield failure("credential", error.message, "It is asked of auth: see above, or logs/auth.log.")
        return
    yield ok("credential", f"you are {caller.name or caller.principal}")
    for subject, part in _PARTS.items():
        yield from _asked(subject, part, client)


def _unavailable(url: str, error: Unavailable) -> Finding:
    if not error.reason:
        advice = "Is it running? `strongroom up` starts it here; STRONGROOM_URL says where it is."
        return failure("gateway", f"{url} can't be reached ({error.message})", advice)
    part = error.metadata.get("part", "a part")
    return failure(
        "parts", error.message, f"Look at the log of {part}: logs/{part}.log, or `docker compose logs {part}`."
    )


def _versions(server: str, ours: str) -> Finding:
    if server == ours:
        return ok("version", f"{ours}, here and there")
    return warning("version", f"Strongroom is {server}, this program {ours}", "Install the same version here.")


def _clocks(ahead: float, took: float) -> Finding:
    """`ahead`: its clock against ours when we asked; it looked at it at some moment until the answer was here."""
    skew = -ahead if ahead < 0 else max(0.0, ahead - took)
    if skew <= _SKEW_SECONDS:
        return ok("clocks", f"they differ by less than {_SKEW_SECONDS:.0f} s")
    return warning("clocks", f"they differ by {skew:.0f} s: tokens are refused", "Let NTP set both clocks.")


def _asked(subject: str, part: _Look, client: Client) -> Iterator[Finding]:
    try:
        yield from part(client)
    except PermissionDenied as error:
        yield skipped(subject, error.message, "An administrator's key sees it.")
    except StrongroomError as error:
        yield failure(subject, error.message, "Mend what is told above, then look again.")


def _stores(client: Client) -> Iterator[Finding]:
    shown = client.stores.show()
    if shown.index_problem:
        yield failure("index", shown.index_problem, "See docs/replicas.md: strongroom admin rebuild")
    for store in shown.stores:
        name = f"store {store.name}"
        if not store.healthy:
            yield failure(name, store.error or "it was not looked at yet", "See docs/stores.md, When a store fails.")
        elif store.lag_seconds > _LAG_SECONDS:
            lacks = f"lacks {store.pending_objects} objects, for {store.lag_seconds:.0f} s"
            yield warning(
                name, f"{lacks}. {store.error}".rstrip(), "strongroom admin stores shows whether it catches up."
            )
        else:
            yield ok(name, f"{store.kind}, {store.role}, has what it should have")


def _providers(client: Client) -> Iterator[Finding]:
    for provider in client.providers.show():
        name = f"provider {provider.name}"
        if not provider.healthy:
            yield failure(name, provider.error or "it was not looked at yet", "See docs/providers.md, Signing in.")
        elif provider.lag_seconds > _LAG_SECONDS:
            lacks = f"has not seen {provider.pending_secrets} changes, for {provider.lag_seconds:.0f} s"
            yield warning(name, f"{lacks}. {provider.error}".rstrip(), "See docs/providers.md, Signing in.")
        elif provider.drifted_secrets:
            advice = "strongroom secrets providers --help shows how to see and mend it."
            yield warning(name, f"{provider.drifted_secrets} secrets differ from the primary", advice)
        else:
            yield ok(name, f"{provider.kind}, {provider.role}, answers")


def _root_key(client: Client) -> Iterator[Finding]:
    generations = client.root_key.show().generations
    if len(generations) > 1:
        newest = max(generations, key=lambda one: one.generation)
        waiting = sum(one.keks for one in generations if one is not newest)
        advice = f"strongroom admin root-key move {newest.name}"
        yield warning("root key", f"a move is not finished: {waiting} keys are under the old one", advice)
    else:
        yield ok("root key", ", ".join(f"{one.kind} {one.place}" for one in generations))


def _keys(client: Client) -> Iterator[Finding]:
    old = [key for key in client.keys.ages().keys if key.status == "overdue"]
    if old:
        named = ", ".join(f"{key.name} ({key.key_prefix}…, {key.age_days} days)" for key in old[:5])
        more = f" and {len(old) - 5} more" if len(old) > 5 else ""
        yield warning("API keys", f"older than the policy allows: {named}{more}", "strongroom keys rotate ID")
    else:
        yield ok("API keys", "none is older than the policy allows")


_PARTS: dict[str, _Look] = {"stores": _stores, "providers": _providers, "root key": _root_key, "API keys": _keys}
