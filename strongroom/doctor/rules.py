"""What answers of an installation mean: pure rules."""

from collections.abc import Iterable, Iterator

from strongroom.auth.v1.api_keys_pb2 import KeyAge
from strongroom.doctor.findings import Finding, failure, ok, warning
from strongroom.errors import Unavailable
from strongroom.models.v1.stores_pb2 import ListStoresResponse
from strongroom.secrets.v1.providers_pb2 import Provider
from strongroom.secrets.v1.root_key_pb2 import GetRootKeyResponse

# Tokens are good for as little as a minute, and verified with five seconds of grace.
_SKEW_SECONDS = 5.0
# Replicas are given what they lack within seconds.
_LAG_SECONDS = 60.0
# Keys that are named; of more only the number.
_NAMED = 5


def unavailable(url: str, error: Unavailable) -> Finding:
    """Nothing answers, or a part says that it can't do its work."""
    if not error.reason:
        advice = "Is it running? `strongroom up` starts it here; STRONGROOM_URL says where it is."
        return failure("gateway", f"{url} can't be reached ({error.message})", advice)
    part = error.metadata.get("part", "a part")
    return failure("parts", error.message, f"Look at its log: logs/{part}.log, or `docker compose logs {part}`.")


def versions(server: str, ours: str) -> Finding:
    if server == ours:
        return ok("version", f"{ours}, here and there")
    return warning("version", f"Strongroom is {server}, this program {ours}", "Install the same version here.")


def clocks(ahead: float, took: float) -> Finding:
    """`ahead`: its clock against ours when we asked; it looked at it at some moment of the seconds that it `took`."""
    skew = -ahead if ahead < 0 else max(0.0, ahead - took)
    if skew <= _SKEW_SECONDS:
        return ok("clocks", f"they differ by less than {_SKEW_SECONDS:.0f} s")
    return warning("clocks", f"they differ by {skew:.0f} s: tokens are refused", "Let NTP set both clocks.")


def stores(shown: ListStoresResponse) -> Iterator[Finding]:
    if shown.index_problem:
        yield failure("index", shown.index_problem, "See docs/replicas.md: strongroom admin rebuild")
    for store in shown.stores:
        name = f"store {store.name}"
        if not store.healthy:
            yield failure(name, store.error or "it was not looked at yet", "See docs/stores.md, When a store fails.")
        elif store.lag_seconds > _LAG_SECONDS:
            lacks = f"lacks {store.pending_objects} objects, for {store.lag_seconds:.0f} s. {store.error}"
            yield warning(name, lacks.rstrip(), "strongroom admin stores shows whether it catches up.")
        else:
            yield ok(name, f"{store.kind}, {store.role}, has what it should have")


def providers(shown: Iterable[Provider]) -> Iterator[Finding]:
    for provider in shown:
        name = f"provider {provider.name}"
        if not provider.healthy:
            yield failure(name, provider.error or "it was not looked at yet", "See docs/providers.md, Signing in.")
        elif provider.lag_seconds > _LAG_SECONDS:
            lacks = (
                f"has not seen {provider.pending_secrets} changes, for {provider.lag_seconds:.0f} s. {provider.error}"
            )
            yield warning(name, lacks.rstrip(), "See docs/providers.md, Signing in.")
        elif provider.drifted_secrets:
            drifted = f"{provider.drifted_secrets} secrets differ from the primary"
            yield warning(name, drifted, "docs/providers.md, Replicas, says how to see and mend it.")
        else:
            yield ok(name, f"{provider.kind}, {provider.role}, answers")


def root_key(shown: GetRootKeyResponse) -> Finding:
    generations = sorted(shown.generations, key=lambda one: one.generation)
    if len(generations) > 1:
        waiting = sum(one.keks for one in generations[:-1])
        advice = f"strongroom admin root-key move {generations[-1].name}"
        return warning("root key", f"a move is not finished: {waiting} keys are under the old one", advice)
    return ok("root key", ", ".join(f"{one.kind} {one.place}" for one in generations))


def keys(ages: Iterable[KeyAge]) -> Finding:
    old = [key for key in ages if key.status == "overdue"]
    if not old:
        return ok("API keys", "none is older than the policy allows")
    named = ", ".join(f"{key.name} ({key.key_prefix}…, {key.age_days} days)" for key in old[:_NAMED])
    more = f" and {len(old) - _NAMED} more" if len(old) > _NAMED else ""
    return warning("API keys", f"older than the policy allows: {named}{more}", "strongroom keys rotate ID")
