"""What the shell offers at the Tab key: asked of Strongroom, or from memory where it does not answer at once."""

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from itertools import islice
from queue import Empty, Queue
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from strongroom.client import Client
    from strongroom.profiles import Profile

# Whoever presses Tab does not wait longer, in seconds.
_PATIENCE = 1.0
# What one page of a listing holds: nobody chooses from more.
_PAGE = 100
_SETS = ("read_only", "training_pipeline", "prefect_workflows", "full_access", "train", "predict")
_ROLES = ("admin", "researcher", "analyst", "viewer", "guest")
_STAGES = ("none", "development", "staging", "production", "archived")
_STATES = ("pending", "running", "completed", "failed", "canceling", "canceled")

# By what the shell says that it completes, and where we keep what of the word stands before the part that it replaces.
_INSTRUCTION, _BEGUN = "_STRONGROOM_COMPLETE", "_STRONGROOM_COMPLETE_BEGUN"
# What bash takes for a word of its own, wherever it stands.
_BREAKS = re.compile(r"[@:=]+")
# What a model, a version, an alias, a manager may be called.
_NAME = re.compile(r"[A-Za-z0-9._-]*")
# What means nothing to any shell, so that it can be put on a command line without quotes.
_PLAIN = re.compile(r"[\w./@:][\w./@:+=,-]*")
# Scripts of shells evaluate descriptions too, and other people write them.
_UNSAFE = re.compile(r"[^\w ./@:+=,;()-]")

Offer = tuple[str, str]


def take_whole_words() -> None:
    """Puts together what bash has divided: `scorer@v1` and `--manager=fraud` reach us as three words each."""
    if os.environ.get(_INSTRUCTION) != "complete_bash":
        return
    with suppress(KeyError, ValueError):
        current = int(os.environ["COMP_CWORD"])
        divided = os.environ["COMP_WORDS"].split("\n")[: current + 1]
        if len(divided) <= current:
            return
        words, replaced = _whole(divided)
        os.environ[_BEGUN] = words[-1].removesuffix(replaced)
        os.environ["COMP_WORDS"] = "\n".join([*words[:-1], replaced])
        os.environ["COMP_CWORD"] = str(len(words) - 1)


def _whole(divided: list[str]) -> tuple[list[str], str]:
    """The words, and the part of the last one that bash replaces."""
    words: list[str] = []
    replaced, before = "", ""
    for part in divided:
        is_break, follows_break = bool(_BREAKS.fullmatch(part)), bool(_BREAKS.fullmatch(before))
        if is_break and part == "=" and before.startswith("--"):
            # The value is a word by itself, as if a space stood there.
            words.append("")
        elif words and (is_break or (follows_break and not part.startswith("-"))):
            words[-1] += part
        else:
            words.append(part)
        replaced = "" if is_break else part
        # Of what divides words, bash replaces this with the word that it begins.
        if (part if is_break else before if follows_break else "").endswith("@"):
            replaced = f"@{replaced}"
        before = part
    return words, replaced


def permission_sets(incomplete: str) -> list[Offer]:
    """Names of permission sets with what they are for."""
    return _matching(incomplete, lambda client: ((item.name, item.description) for item in client.keys.sets()), _SETS)


def permissions(incomplete: str) -> list[Offer]:
    """Permissions that sets are made of."""
    return _matching(
        incomplete, lambda client: ((name, "") for item in client.keys.sets() for name in item.permissions)
    )


def roles(incomplete: str) -> list[Offer]:
    """The roles of users with what they are for."""
    return _matching(
        incomplete, lambda client: ((item.name, item.description) for item in client.users.roles()), _ROLES
    )


def secrets(incomplete: str) -> list[Offer]:
    """Names of secrets that begin so."""
    return _matching(
        incomplete, lambda client: ((secret.name, "") for secret in islice(client.secrets.list(incomplete), _PAGE))
    )


def managers(incomplete: str) -> list[Offer]:
    """Ids of managers with what their models do."""
    return _matching(
        incomplete, lambda client: ((item.manager_id, item.task_type) for item in islice(client.managers.list(), _PAGE))
    )


def models(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Names of models, of the manager that the line names so far."""
    return _models(_typed(incomplete), ctx, incomplete)


def versions(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Versions of the model that the line names."""
    return _matching(incomplete, _versions(ctx, ctx.params.get("name"), _typed(incomplete)))


def aliases(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Aliases of the model that the line names."""
    return _matching(incomplete, _aliases(ctx, ctx.params.get("name")))


def versions_of_models(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """`NAME`, then `NAME@VERSION`."""
    name, mark, version = _typed(incomplete).partition("@")
    if not mark:
        return _models(name, ctx, incomplete)
    return _matching(incomplete, _versions(ctx, name, version, before=f"{name}@"))


def references(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """`NAME`, then `NAME@VERSION` or `NAME:ALIAS`."""
    name, mark, _ = _typed(incomplete).partition(":")
    if not mark or "@" in name:
        return versions_of_models(ctx, incomplete)
    return _matching(incomplete, _aliases(ctx, name, before=f"{name}:"))


def stages(incomplete: str) -> list[Offer]:
    """Stages of versions."""
    return _matching(incomplete, None, _STAGES)


def keys(incomplete: str) -> list[Offer]:
    """Ids of API keys with their names, the newest of them."""
    return _keys(incomplete, active_only=False)


def active_keys(incomplete: str) -> list[Offer]:
    """Ids of API keys that can be used, with their names."""
    return _keys(incomplete, active_only=True)


def jobs(incomplete: str) -> list[Offer]:
    """Ids of jobs with what they are, the newest of them."""
    return _matching(
        incomplete,
        lambda client: ((job.id, f"{job.type}, {job.status}") for job in islice(client.jobs.list(), _PAGE)),
    )


def states(incomplete: str) -> list[Offer]:
    """States of jobs."""
    return _matching(incomplete, None, _STATES)


def configs(incomplete: str) -> list[Offer]:
    """Ids of configs with their names."""
    return _matching(
        incomplete, lambda client: ((config.id, config.name) for config in islice(client.configs.list(), _PAGE))
    )


def named_configs(incomplete: str) -> list[Offer]:
    """Names of configs; ids where a name is of several, or would have to be quoted."""

    def ask(client: "Client") -> Iterable[Offer]:
        found = list(islice(client.configs.list(), _PAGE))
        count = Counter(config.name for config in found)
        for config in found:
            is_enough = count[config.name] == 1 and _PLAIN.fullmatch(config.name)
            yield (config.name, "") if is_enough else (config.id, config.name)

    return _matching(incomplete, ask)


def _models(begin: str, ctx: typer.Context, incomplete: str) -> list[Offer]:
    if not _NAME.fullmatch(begin):
        return []
    # The listing has no prefix, the search has: in a manager of thousands the first page may hold none that matches.
    regex, manager = begin and f"^{re.escape(begin)}", _manager(ctx)
    return _matching(
        incomplete,
        lambda client: (
            (item.name, item.latest_version)
            for item in islice(client.catalog.search_models(regex=regex, manager=manager), _PAGE)
        ),
    )


def _versions(
    ctx: typer.Context, name: str | None, begin: str, *, before: str = ""
) -> Callable[["Client"], Iterable[Offer]] | None:
    """None if there can be none."""
    if not name or not _NAME.fullmatch(name + begin):
        return None
    manager, regex = _manager(ctx), begin and f"^{re.escape(name)}@{re.escape(begin)}"
    return lambda client: (
        (before + item.version, ", ".join([*item.aliases, item.stage.removeprefix("none")]).strip(", "))
        for item in islice(client.catalog.search_versions(model=name, regex=regex, manager=manager), _PAGE)
    )


def _aliases(ctx: typer.Context, name: str | None, *, before: str = "") -> Callable[["Client"], Iterable[Offer]] | None:
    """None if there can be none."""
    if not name or not _NAME.fullmatch(name):
        return None
    manager = _manager(ctx)
    return lambda client: (
        (before + item.alias, item.version) for item in islice(client.aliases.list(name, manager=manager), _PAGE)
    )


def _keys(incomplete: str, *, active_only: bool) -> list[Offer]:
    return _matching(
        incomplete,
        lambda client: ((key.id, key.name) for key in islice(client.keys.list(active_only=active_only), _PAGE)),
    )


def _manager(ctx: typer.Context) -> str:
    return ctx.params.get("manager") or "default"


def _typed(incomplete: str) -> str:
    """The whole word, of which bash may have told a part."""
    return os.environ.get(_BEGUN, "") + incomplete


def _matching(
    incomplete: str, ask: Callable[["Client"], Iterable[Offer]] | None, known: tuple[str, ...] = ()
) -> list[Offer]:
    offers = dict((ask and _answer(ask)) or ((name, "") for name in known))
    typed = _typed(incomplete)
    begun = len(typed) - len(incomplete)
    return [
        (name[begun:], _UNSAFE.sub(" ", text))
        for name, text in sorted(offers.items())
        if name.startswith(typed) and _PLAIN.fullmatch(name)
    ]


def _as_it_is(profile: "Profile") -> "Profile":
    """The profile, of a session its access token alone. To renew it takes the refresh token, which works once: the end
    of our patience between that and keeping the next one would end the session."""
    if profile.session is None:
        return profile
    return replace(profile, token=profile.session.access_token, session=None)


def _answer(ask: Callable[["Client"], Iterable[Offer]]) -> list[Offer]:
    # What takes its time on a slow machine, and not for want of an answer, is loaded before that is waited for.
    import_module("strongroom.client")
    from strongroom import profiles
    from strongroom.cli.session import client_of

    answers: Queue[list[Offer]] = Queue()

    def run() -> None:
        # The shell must not show an error in the middle of a line, whatever it is.
        with suppress(Exception), client_of(_as_it_is(profiles.current())) as client:
            answers.put(list(ask(client)))
            return
        answers.put([])

    threading.Thread(target=run, name="completion", daemon=True).start()
    try:
        return answers.get(timeout=_PATIENCE)
    except Empty:
        return []
