"""Two replicas at the same moment, on SQLite and on PostgreSQL: what happens to a key happens once, or not at all."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from services.auth import bootstrap, rights
from services.auth.api_keys import ApiKeys
from services.auth.envelope import Envelope
from services.auth.key_record import ApiKey, Changes, NewApiKey
from services.auth.key_versions import MAX_LIVE, KeyVersions
from services.auth.pepper import Pepper
from services.auth.tables import api_key_versions, api_keys
from services.shared.database import Database
from services.shared.errors import DomainError
from services.shared.identity import Grant, Principal
from services.shared.tokens import InvalidToken
from tests import postgresql

MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"
ADMINISTRATOR = Principal("user:1", grants=(Grant("allow", ("*",), ("**",)),))
READ = rights.resolve("read_only")
ROUNDS = 8


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Replica:
    """What one process has of the keys."""

    database: Database
    pepper: Pepper
    keys: ApiKeys
    versions: KeyVersions


@pytest.fixture(params=["sqlite", "postgresql"])
def replicas(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Replica]]:
    """Two on one database."""
    url = f"sqlite:///{tmp_path}/races.db"
    if request.param == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        url = server.create_database()
    with ExitStack() as stack:
        made = []
        for _ in range(2):
            database = Database.open(url, service="auth", migrations=MIGRATIONS, pool_size=8)
            stack.callback(database.close)
            # An envelope that hides nothing: this test is about rows.
            pepper = Pepper(database, Envelope(lambda text, _: text, lambda text, _: text), _now)
            pepper.load()
            versions = KeyVersions(database, pepper, _now)
            keys = ApiKeys(
                database, pepper, _now, lambda credential, of=versions: credential != "" and of.unusable(credential)
            )
            made.append(Replica(database, pepper, keys, versions))
        yield made


def _revoke_owned(replica: Replica, owner: str, beyond: Sequence[Grant] = ()) -> int:
    with replica.database.write() as connection:
        return replica.keys.revoke_owned(connection, owner, beyond)


def _together(*steps: Callable[[], Any]) -> list[Any]:
    """Runs the steps at the same moment; what each returned or the DomainError it raised."""
    barrier = Barrier(len(steps))

    def run(step: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return step()
        except DomainError as error:
            return error

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(run, steps))


def _create(replica: Replica, caller: Principal = ADMINISTRATOR, **fields: Any) -> tuple[ApiKey, str]:
    return replica.keys.create(caller, NewApiKey("raced", fields.pop("rights", READ), **fields))


def _current(replica: Replica, key_id: str) -> list[int]:
    with replica.database.read() as connection:
        unended = sa.select(api_key_versions.c.number).where(
            api_key_versions.c.key_id == key_id, api_key_versions.c.expires_at.is_(None)
        )
        return list(connection.scalars(unended))


@pytest.mark.row("S1.10")
def test_of_rotations_at_the_same_moment_one_secret_is_the_newest(replicas: list[Replica]) -> None:
    for _ in range(ROUNDS):
        key, first = _create(replicas[0])
        steps = [
            lambda r=replica, k=key: r.keys.rotate(ADMINISTRATOR, k.id, timedelta(hours=1)) for replica in replicas
        ]
        texts = [text for _, text in _together(*steps)]
        found = [replicas[0].versions.find(text) for text in (first, *texts)]
        assert all(presented is not None and presented.revoked_at is None for presented in found)
        assert [presented is not None and presented.expires_at is None for presented in found].count(True) == 1
        assert _current(replicas[1], key.id) == [3]
        assert [version.number for version in replicas[1].keys.get(key.id).versions] == [3, 2, 1]


def test_many_rotations_at_the_same_moment_leave_five_secrets_that_work(replicas: list[Replica]) -> None:
    key, _ = _create(replicas[0])
    steps = [
        lambda r=replica: r.keys.rotate(ADMINISTRATOR, key.id, timedelta(hours=1))
        for replica in replicas
        for _ in range(4)
    ]
    answers = _together(*steps)
    refused = [answer for answer in answers if isinstance(answer, DomainError)]
    assert {error.error_reason for error in refused} == {"API_KEY_VERSIONS_EXHAUSTED"}
    assert len(answers) - len(refused) == MAX_LIVE - 1
    assert _current(replicas[0], key.id) == [MAX_LIVE]


@pytest.mark.row("S2.5")
def test_a_rotation_and_a_revocation_leave_no_secret_that_works(replicas: list[Replica]) -> None:
    for _ in range(ROUNDS):
        key, first = _create(replicas[0])
        rotated, _ = _together(
            lambda k=key: replicas[0].keys.rotate(ADMINISTRATOR, k.id, timedelta(hours=1)),
            lambda k=key: replicas[1].keys.revoke(ADMINISTRATOR, k.id),
        )
        texts = [first] if isinstance(rotated, DomainError) else [first, rotated[1]]
        found = [replicas[0].versions.find(text) for text in texts]
        assert all(presented is not None and presented.revoked_at is not None for presented in found)
        assert all(
            presented and replicas[1].versions.unusable(presented.principal.credential_id) for presented in found
        )


@pytest.mark.row("S2.5")
def test_a_cascade_misses_no_key_that_is_being_made(replicas: list[Replica]) -> None:
    full = rights.resolve("full_access")
    for _ in range(ROUNDS):
        maker, _ = _create(replicas[0], rights=full)
        caller = maker.principal()
        made, _ = _together(
            lambda c=caller: _create(replicas[0], c),
            lambda m=maker: replicas[1].keys.revoke(ADMINISTRATOR, m.id, cascade=True),
        )
        if isinstance(made, DomainError):
            assert made.error_reason == "CREDENTIAL_INVALID"
        else:
            assert replicas[0].keys.get(made[0].id).revoked_at is not None
        with replicas[0].database.read() as connection:
            living = api_keys.c.revoked_at.is_(None) & (api_keys.c.created_by == caller.id)
            assert connection.scalars(sa.select(api_keys.c.id).where(living)).all() == []


@pytest.mark.row("S2.5")
@pytest.mark.parametrize("change", ["widen", "rotate"])
def test_a_cascade_takes_the_keys_that_were_changed_with_a_key(replicas: list[Replica], change: str) -> None:
    """Whose secret somebody has seen, or whose rights somebody has chosen, is theirs as if they had made it."""
    found, _ = _create(replicas[0], rights=rights.resolve("full_access"))
    weak, _ = _create(replicas[0])
    child, _ = _create(replicas[0], weak.principal())
    if change == "widen":
        replicas[0].keys.update(found.principal(), weak.id, Changes(rights=rights.resolve("full_access")))
    else:
        replicas[0].keys.rotate(found.principal(), weak.id, timedelta())
        replicas[0].keys.rotate(found.principal(), weak.id, timedelta())
    replicas[1].keys.revoke(ADMINISTRATOR, found.id, cascade=True)
    assert [replicas[1].keys.get(key.id).revoked_at is None for key in (found, weak, child)] == [False, False, False]


def test_two_keys_that_change_each_other_at_a_moment_do_not_block(replicas: list[Replica]) -> None:
    one, other = (_create(replicas[0], rights=rights.resolve("full_access"))[0] for _ in range(2))
    for _ in range(ROUNDS):
        first, second = (replicas[0].keys.get(key.id).principal() for key in (one, other))
        done = _together(
            lambda c=first: replicas[0].keys.rotate(c, other.id, timedelta(hours=1)),
            lambda c=second: replicas[1].keys.rotate(c, one.id, timedelta(hours=1)),
        )
        # Whoever comes second has a secret that ends.
        reasons = {error.error_reason for error in done if isinstance(error, DomainError)}
        assert reasons <= {"API_KEY_VERSIONS_EXHAUSTED", "LIFETIME_NOT_COVERED"}


@pytest.mark.row("S2.5")
def test_ending_all_keys_of_an_owner_ends_what_was_made_with_them_and_what_is_being_made(
    replicas: list[Replica],
) -> None:
    mine, _ = _create(replicas[0], rights=rights.resolve("full_access"), owner="user:2")
    child, _ = _create(replicas[0], mine.principal())
    grandchild, _ = _create(replicas[0], ADMINISTRATOR, owner=f"key:{child.id}")
    given_away, _ = _create(replicas[0], mine.principal(), owner="user:3")
    replicas[1].keys.revoke(ADMINISTRATOR, mine.id)
    assert _revoke_owned(replicas[0], "user:2") == 2
    states = [replicas[1].keys.get(key.id).revoked_at is None for key in (mine, child, grandchild, given_away)]
    assert states == [False, False, False, True]
    assert _revoke_owned(replicas[1], "user:2") == 0


def test_a_narrowed_key_hides_no_stronger_one_from_its_owners_demotion(replicas: list[Replica]) -> None:
    mine, _ = _create(replicas[0], rights=rights.resolve("full_access"), owner="user:5")
    child, _ = _create(replicas[0], replicas[0].keys.get(mine.id).principal(), rights=rights.resolve("full_access"))
    replicas[0].keys.update(ADMINISTRATOR, mine.id, Changes(rights=READ))
    assert _revoke_owned(replicas[1], "user:5", READ.grants) == 1
    assert replicas[0].keys.get(mine.id).revoked_at is None
    assert replicas[0].keys.get(child.id).revoked_at is not None


def test_a_caller_whose_credential_ends_while_it_makes_a_key_has_made_none(replicas: list[Replica]) -> None:
    """The order that is not seen before the key is there: sign out, end the keys, then insert."""
    ended: list[str] = []
    keys = ApiKeys(replicas[0].database, replicas[0].pepper, _now, lambda credential: credential in ended)
    user = Principal("user:4", credential_id="session:1", grants=ADMINISTRATOR.grants)
    made, _ = keys.create(user, NewApiKey("in time", READ))
    assert made.revoked_at is None
    ended.append("session:1")
    assert _revoke_owned(replicas[0], "user:4") == 1
    with pytest.raises(InvalidToken):
        keys.create(user, NewApiKey("too late", READ))
    living, _ = keys.page(ADMINISTRATOR, 0, "", active_only=True, owner="user:4")
    assert living == []


def test_changes_at_the_same_moment_are_both_kept(replicas: list[Replica]) -> None:
    for _ in range(ROUNDS):
        key, _ = _create(replicas[0], expires_in=timedelta(days=1))
        answers = _together(
            lambda k=key: replicas[0].keys.extend(ADMINISTRATOR, k.id, timedelta(days=1)),
            lambda k=key: replicas[1].keys.extend(ADMINISTRATOR, k.id, timedelta(days=1)),
            lambda k=key: replicas[0].keys.update(ADMINISTRATOR, k.id, Changes(name="renamed")),
            lambda k=key: replicas[1].keys.update(ADMINISTRATOR, k.id, Changes(rights=rights.resolve("predict"))),
        )
        assert not any(isinstance(answer, DomainError) for answer in answers)
        now = replicas[0].keys.get(key.id)
        assert (now.name, now.rights.permission_set) == ("renamed", "predict")
        assert key.expires_at is not None
        assert now.expires_at == key.expires_at + timedelta(days=2)


def test_narrowing_a_key_while_it_makes_another_never_widens(replicas: list[Replica]) -> None:
    """A key that is changed gets other ids for its versions: its next request is judged by what it may do now."""
    key, text = _create(replicas[0], rights=rights.resolve("full_access"))
    before = replicas[0].versions.find(text)
    replicas[1].keys.update(ADMINISTRATOR, key.id, Changes(rights=READ))
    after = replicas[0].versions.find(text)
    assert before
    assert after
    assert before.principal.credential_id != after.principal.credential_id
    assert replicas[0].versions.unusable(before.principal.credential_id)
    assert not replicas[0].versions.unusable(after.principal.credential_id)
    assert after.principal.grants == READ.grants
    # One that was let in before the change makes nothing of what it may no longer do.
    with pytest.raises(InvalidToken):
        _create(replicas[0], before.principal)
