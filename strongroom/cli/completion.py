"""What the shell offers at the Tab key: asked of Strongroom, or from memory where it does not answer at once."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from queue import Empty, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.client import Client

# Whoever presses Tab does not wait longer, in seconds.
_PATIENCE = 1.5
_SETS = ("read_only", "training_pipeline", "prefect_workflows", "full_access", "train", "predict")
_ROLES = ("admin", "researcher", "analyst", "viewer", "guest")

Offer = tuple[str, str]


def permission_sets(incomplete: str) -> list[Offer]:
    """Names of permission sets with what they are for."""
    return _matching(incomplete, lambda client: ((item.name, item.description) for item in client.keys.sets()), _SETS)


def permissions(incomplete: str) -> list[Offer]:
    """Permissions that sets are made of."""
    return _matching(
        incomplete, lambda client: ((name, "") for item in client.keys.sets() for name in item.permissions), ()
    )


def roles(incomplete: str) -> list[Offer]:
    """The roles of users with what they are for."""
    return _matching(
        incomplete, lambda client: ((item.name, item.description) for item in client.users.roles()), _ROLES
    )


def secrets(incomplete: str) -> list[Offer]:
    """Names of secrets that begin so."""
    return _matching(
        incomplete, lambda client: ((secret.name, "") for secret in islice(client.secrets.list(incomplete), 100)), ()
    )


def _matching(incomplete: str, ask: Callable[["Client"], Iterable[Offer]], known: tuple[str, ...]) -> list[Offer]:
    offers = dict(_answer(ask) or ((name, "") for name in known))
    return [(name, text) for name, text in sorted(offers.items()) if name.startswith(incomplete)]


def _answer(ask: Callable[["Client"], Iterable[Offer]]) -> list[Offer]:
    from strongroom import profiles
    from strongroom.cli.session import client_of
    from strongroom.errors import StrongroomError

    answers: Queue[list[Offer]] = Queue()

    def run() -> None:
        # The shell must not show an error in the middle of a line.
        with suppress(StrongroomError), client_of(profiles.current()) as client:
            answers.put(list(ask(client)))
            return
        answers.put([])

    threading.Thread(target=run, name="completion", daemon=True).start()
    try:
        return answers.get(timeout=_PATIENCE)
    except Empty:
        return []
