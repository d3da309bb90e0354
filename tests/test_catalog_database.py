"""What is said about models, on SQLite and on PostgreSQL: races, statements that stay few, and pages."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

import services.models
from services.models import catalog_tables as c
from services.models import tables as t
from services.models.aliases import MOST_ALIASES, Aliases, AliasesTooMany
from services.models.annotations import Annotations
from services.models.artifact_access import Sight
from services.models.artifacts import ArtifactData, ArtifactExists, Artifacts
from services.models.etags import NEVER_SET, EtagMismatch
from services.models.key_client import KeyClient
from services.models.lineage import Lineage, ParentName
from services.models.managers import DEFAULT_MANAGER, Managers
from services.models.notes import VersionInUse
from services.models.search import Search
from services.models.text_search import MOST_ROWS, ROWS, SEARCHED, SECONDS, TextFilter
from services.models.versions import LATEST, VersionNotFound, Versions
from services.shared.database import Database
from services.shared.errors import DomainError
from services.shared.ids import new_id
from tests.serving import ADMINISTRATOR
from tests.test_models_listing import count_statements

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIGRATIONS = Path(services.models.__file__).parent / "migrations"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url, service="models", migrations=MIGRATIONS)
    with opened.write() as connection:
        row = {"id": DEFAULT_MANAGER, "kek_id": "kek", "domain_key_id": "domain", "created_at": NOW}
        connection.execute(sa.insert(t.managers).values(row))
    yield opened
    opened.close()


@pytest.fixture
def managers(database: Database) -> Managers:
    # Nobody listens there: nothing here asks for a key.
    return Managers(database, KeyClient(grpc.insecure_channel("127.0.0.1:1")), lambda: NOW)


@pytest.fixture
def aliases(database: Database, managers: Managers) -> Aliases:
    return Aliases(database, managers, lambda: NOW, new_id)


@pytest.fixture
def annotations(database: Database, managers: Managers) -> Annotations:
    return Annotations(database, managers, new_id)


@pytest.fixture
def versions(database: Database, managers: Managers) -> Versions:
    return Versions(database, managers, lambda _names: None, lambda: NOW)


def add_models(database: Database, names: list[str], per_model: int) -> None:
    """Models with versions `v0`, `v1`, …: rows alone."""
    with database.write() as connection:
        for name in names:
            row = {"manager_id": DEFAULT_MANAGER, "name": name, "versions_count": per_model}
            row |= {"created_at": NOW, "updated_at": NOW}
            model = connection.execute(sa.insert(t.models).values(row).returning(t.models.c.id)).scalar_one()
            rows = [_version_row(model, f"v{number}") for number in range(per_model)]
            connection.execute(sa.insert(t.versions), rows)


def _version_row(model: int, name: str) -> dict[str, object]:
    uid = new_id()
    keys = {"data_key_id": uid, "manifest_key": uid, "manifest_digest": b""}
    told = {"size": 1, "files_count": 1, "created_at": NOW, "created_by": "key:a", "sha256_verified": False}
    return {"uid": uid, "model_id": model, "name": name, **keys, **told}


def at_once(*works: Callable[[], object]) -> list[object]:
    """What each returns or raises, all begun at the same time."""
    ready, outcomes = threading.Barrier(len(works)), [None] * len(works)

    def run(place: int, work: Callable[[], object]) -> None:
        ready.wait(10)
        try:
            outcomes[place] = work()
        except DomainError as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def test_of_many_who_read_the_same_etag_one_wins(database: Database, aliases: Aliases) -> None:
    add_models(database, ["scorer"], 8)

    def move(number: int, expected: str) -> Callable[[], object]:
        return lambda: aliases.set(DEFAULT_MANAGER, "scorer", "champion", f"v{number}", "key:a", expected=expected)

    expected = NEVER_SET
    for _ in range(3):
        outcomes = at_once(*(move(number, expected) for number in range(8)))
        won = [outcome for outcome in outcomes if not isinstance(outcome, DomainError)]
        assert len(won) == 1
        assert all(isinstance(outcome, EtagMismatch) for outcome in outcomes if outcome not in won)
        now = aliases.get(DEFAULT_MANAGER, "scorer", "champion")
        assert now.version == won[0].version  # type: ignore[attr-defined]
        expected = now.etag


def test_cards_edited_at_the_same_time_do_not_undo_each_other(database: Database, annotations: Annotations) -> None:
    add_models(database, ["scorer"], 1)

    def edit(name: str) -> Callable[[], object]:
        def work() -> None:
            while True:
                entry = annotations.model(DEFAULT_MANAGER, "scorer")
                try:
                    annotations.update_model(
                        DEFAULT_MANAGER, "scorer", "", {**entry.tags, name: ""}, expected=entry.etag
                    )
                except EtagMismatch:
                    continue
                return

        return work

    at_once(*(edit(f"t{number}") for number in range(6)))
    assert set(annotations.model(DEFAULT_MANAGER, "scorer").tags) == {f"t{number}" for number in range(6)}


def test_an_alias_never_names_a_version_that_is_gone(database: Database, aliases: Aliases, versions: Versions) -> None:
    """Whoever comes second gives way: the deletion, or the alias."""
    add_models(database, ["scorer"], 13)
    for number in range(12):
        outcomes = at_once(
            lambda n=number: aliases.set(DEFAULT_MANAGER, "scorer", f"a{n}", f"v{n}", "key:a"),  # type: ignore[misc]
            lambda n=number: versions.delete(DEFAULT_MANAGER, "scorer", f"v{n}"),  # type: ignore[misc]
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, DomainError)]
        assert len(refused) == 1, outcomes
        assert isinstance(refused[0], VersionInUse | VersionNotFound)
    named = {alias.version for alias in aliases.list(DEFAULT_MANAGER, "scorer", 0, "")[0]}
    there = {version.name for version in versions.list_versions(DEFAULT_MANAGER, "scorer", 0, "")[0]}
    assert named == there - {"v12"}


def test_a_model_has_a_hundred_aliases_at_most(database: Database, aliases: Aliases) -> None:
    add_models(database, ["scorer"], 1)
    for number in range(MOST_ALIASES - 1):
        aliases.set(DEFAULT_MANAGER, "scorer", f"a{number}", "v0", "key:a")
    outcomes = at_once(
        *(partial(aliases.set, DEFAULT_MANAGER, "scorer", name, "v0", "key:a") for name in ("b", "c", "d"))
    )
    assert sum(isinstance(outcome, AliasesTooMany) for outcome in outcomes) == 2
    aliases.set(DEFAULT_MANAGER, "scorer", "a0", "v0", "key:a")


def test_a_version_takes_all_that_was_said_about_it_with_it(
    database: Database, managers: Managers, aliases: Aliases, annotations: Annotations, versions: Versions
) -> None:
    add_models(database, ["scorer", "base"], 1)
    annotations.update_model(DEFAULT_MANAGER, "scorer", "card", {"a": "b"})
    annotations.update_version(DEFAULT_MANAGER, "scorer", "v0", "card", {"a": "b"})
    lineage = Lineage(database, managers, annotations)
    lineage.set_parents(
        DEFAULT_MANAGER, "scorer", "v0", [ParentName("", "base", "v0", "", "from")], lambda _m, _n: True
    )
    aliases.set(DEFAULT_MANAGER, "scorer", "champion", "v0", "key:a")
    with pytest.raises(VersionInUse, match="alias 'champion'"):
        versions.delete(DEFAULT_MANAGER, "scorer", "v0")
    aliases.delete(DEFAULT_MANAGER, "scorer", "champion")
    versions.delete(DEFAULT_MANAGER, "scorer", "v0")
    with database.read() as connection:
        for table in (c.aliases, c.model_notes, c.version_notes, c.model_tags, c.version_tags, c.version_parents):
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0, table


def test_a_lineage_in_a_circle_ends(database: Database, managers: Managers, annotations: Annotations) -> None:
    add_models(database, ["a"], 3)
    lineage = Lineage(database, managers, annotations)
    for child, parent in (("v0", "v1"), ("v1", "v2"), ("v2", "v0")):
        lineage.set_parents(DEFAULT_MANAGER, "a", child, [ParentName("", "a", parent, "", "x")], lambda _m, _n: True)
    graph = lineage.graph(DEFAULT_MANAGER, "a", LATEST, lambda _m, _n: True)
    assert (len(graph.nodes), len(graph.edges), graph.truncated) == (3, 3, False)


def test_a_listing_takes_as_many_statements_for_many_versions_as_for_one(
    database: Database, annotations: Annotations, versions: Versions
) -> None:
    add_models(database, ["scorer"], 300)
    statements = count_statements(database)
    taken = []
    for size in (1, 300):
        before = len(statements)
        page, _ = versions.list_versions(DEFAULT_MANAGER, "scorer", size, "")
        assert len(annotations.of(page)) == size
        taken.append(len(statements) - before)
    assert taken[0] == taken[1]


def test_a_search_looks_at_a_bounded_number_of_rows_and_goes_on(database: Database, managers: Managers) -> None:
    add_models(database, [f"m{number:02}" for number in range(3)], ROWS + 7)
    search = Search(database, managers, time.monotonic)
    wanted, found, token, calls = TextFilter.of(regex=r"@v(0|506)$"), [], "", count()
    while True:
        next(calls)
        page, token = search.versions(DEFAULT_MANAGER, "", wanted, {}, "", 1, token, lambda name: name != "m01")
        found += [(version.model_name, version.name) for version, _ in page]
        if not token:
            break
    assert found == [("m00", "v506"), ("m00", "v0"), ("m02", "v506"), ("m02", "v0")]
    assert next(calls) <= 6
    statements = count_statements(database)
    search.versions(DEFAULT_MANAGER, "", TextFilter.of(query="nowhere"), {}, "", 0, "", lambda _name: True)
    assert len(statements) <= MOST_ROWS // ROWS + 8


def test_a_search_with_the_worst_of_expressions_ends_in_time_and_goes_on(
    database: Database, managers: Managers, annotations: Annotations
) -> None:
    add_models(database, [f"m{number:02}" for number in range(12)], 1)
    worst = "".join(random.Random(1).choice("ab") for _ in range(SEARCHED))
    for number in range(12):
        annotations.update_model(DEFAULT_MANAGER, f"m{number:02}", worst, {})
    ticks = count()
    search = Search(database, managers, lambda: next(ticks) * SECONDS / 4)
    wanted, token, calls = TextFilter.of(regex=r"m0.|.{900}.{0,90}x"), "", 0
    found: list[str] = []
    while calls == 0 or token:
        page, token = search.models(DEFAULT_MANAGER, wanted, {}, 0, token, lambda _name: True)
        found += [entry.name for entry in page]
        calls += 1
    assert (len(found), calls) == (10, 4)


def test_of_two_who_register_an_address_one_wins(database: Database) -> None:
    artifacts, sight = Artifacts(database, lambda: NOW, time.monotonic, new_id), Sight(ADMINISTRATOR)
    for number in range(4):
        data = ArtifactData(f"https://example.com/{number}")
        outcomes = at_once(*[lambda d=data: artifacts.register("model", "", d, "key:a", sight)] * 4)  # type: ignore[misc]
        assert sum(isinstance(outcome, ArtifactExists) for outcome in outcomes) == 3, outcomes
    first, second = artifacts.search(None, TextFilter.of(), 2, "", sight)[0]
    with pytest.raises(ArtifactExists):
        artifacts.update("model", second.id, "", ArtifactData(first.data.url), sight)
    assert artifacts.get("model", second.id).data.url == second.data.url
    long_url = "https://example.com/" + "x" * 2000
    assert artifacts.update("model", second.id, "", ArtifactData(long_url), sight).data.url == long_url
