"""Access codes: what they protect, from whom, and how slow guessing is."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import grpc
import pytest

from services.models import access_codes
from services.models.access_codes import AccessCode, AccessCodeInvalid
from services.shared.identity import Principal
from tests.models_installation import OTHER, Caller, Installation, installation, noise, principal, refused
from tests.serving import ADMINISTRATOR

CODE = "correct horse"
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_CODE_REFUSED")
WEIGHTS = {"weights.bin": noise(7, 3_000_000), "config.json": b"{}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("codes")) as made:
        yield made


@pytest.fixture
def owner(running: Installation, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """With codes that are cheap to derive keys from, since a hundred are: what a guess costs is not shown here."""
    monkeypatch.setattr(access_codes, "_COST", (10, 8, 1))
    return running.admin.with_code(CODE)


@pytest.mark.row("S0.4")
def test_a_protected_version_opens_for_its_code_alone_whoever_asks(running: Installation, owner: Caller) -> None:
    owner.push("v1", WEIGHTS, "opens")
    assert owner.read("v1", "weights.bin", "opens") == WEIGHTS["weights.bin"]
    for other in (running.admin, running.admin.with_code("wrong"), running.caller(OTHER)):
        with refused(*REFUSED) as info:
            other.read("v1", "weights.bin", "opens")
        assert CODE not in str(info)


def test_what_one_caller_opened_stays_closed_to_the_next(running: Installation, owner: Caller) -> None:
    """Keys and manifests are remembered for a minute: for those alone who present the code."""
    owner.push("v1", WEIGHTS, "remembered")
    for _ in range(2):
        assert owner.show("v1", "remembered").files
        with refused(*REFUSED):
            running.admin.read("v1", "config.json", "remembered")


def test_a_version_shows_that_it_is_protected_but_not_its_files(running: Installation, owner: Caller) -> None:
    owner.push("v1", WEIGHTS, "shown")
    shown = running.admin.show("v1", "shown")
    assert (shown.protected, list(shown.files), shown.files_count) == (True, [], 2)
    assert len(owner.show("v1", "shown").files) == 2
    assert running.admin.list_versions("shown").versions[0].protected
    running.admin.push("v2", {"a": b"x"}, "shown")
    assert not running.admin.show("v2", "shown").protected


def test_a_code_on_a_version_without_one_changes_nothing(running: Installation, owner: Caller) -> None:
    running.admin.push("v1", {"a": b"x"}, "open")
    assert owner.read("v1", "a", "open") == b"x"


def test_protected_chunks_are_shared_with_nobody(running: Installation, owner: Caller) -> None:
    """Equal bytes in another version would tell whoever may write what is in this one."""
    running.admin.push("v1", WEIGHTS, "apart")
    counted = [_chunks(running)]
    for version in ("v2", "v3"):
        owner.push(version, WEIGHTS, "apart")
        counted.append(_chunks(running))
    assert counted[2] - counted[1] == counted[1] - counted[0] > 1
    running.admin.push("v4", WEIGHTS, "apart")
    assert _chunks(running) == counted[2]


def test_every_step_of_an_upload_takes_the_code(running: Installation, owner: Caller) -> None:
    upload = owner.create("v1", "steps").upload_id
    for other in (running.admin, running.admin.with_code("wrong")):
        with refused(*REFUSED):
            other.has(upload, [b"x"], "steps")
        with refused(*REFUSED):
            other.write(upload, [b"x"], "steps")
    owner.write(upload, [b"x"], "steps")
    with refused(*REFUSED):
        running.admin.commit(upload, {"a": b"x"}, "steps")
    owner.commit(upload, {"a": b"x"}, "steps")
    assert owner.read("v1", "a", "steps") == b"x"


def test_an_upload_resumes_for_the_code_it_was_begun_with(running: Installation, owner: Caller) -> None:
    first = owner.create("v1", "resumed")
    again = owner.create("v1", "resumed")
    assert (again.upload_id, again.resumed) == (first.upload_id, True)
    for other in (running.admin, running.admin.with_code("another")):
        fresh = other.create("v1", "resumed")
        assert (fresh.upload_id == first.upload_id, fresh.resumed) == (False, False)


def test_a_commit_that_is_repeated_answers_as_before(running: Installation, owner: Caller) -> None:
    upload = owner.create("v1", "repeated").upload_id
    owner.write(upload, [b"x"], "repeated")
    first = owner.commit(upload, {"a": b"x"}, "repeated")
    assert owner.commit(upload, {"a": b"x"}, "repeated") == first
    with refused(*REFUSED):
        running.admin.commit(upload, {"a": b"x"}, "repeated")


@pytest.mark.row("S0.6")
def test_every_stored_byte_is_verified_without_the_code(running: Installation, owner: Caller) -> None:
    owner.push("v1", WEIGHTS, "verified")
    [pack] = sorted(set(running.stored("packs")), key=lambda path: path.stat().st_mtime_ns)[-1:]
    whole = running.admin.verify("v1", "verified")
    assert (whole.is_valid, whole.files_checked) == (True, 0)
    assert whole.bytes_checked > 3_000_000
    full = owner.verify("v1", "verified")
    assert (full.is_valid, full.files_checked) == (True, 2)
    content = pack.read_bytes()
    pack.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    assert not running.admin.verify("v1", "verified").is_valid
    assert not owner.verify("v1", "verified").is_valid


def test_a_wrong_code_is_refused_by_verify(running: Installation, owner: Caller) -> None:
    owner.push("v1", {"a": b"x"}, "verify-wrong")
    with refused(*REFUSED):
        running.admin.with_code("wrong").verify("v1", "verify-wrong")


@pytest.mark.row("B2")
def test_neither_code_nor_key_stands_on_the_disk(running: Installation, owner: Caller) -> None:
    secret_code = "code-that-nobody-else-writes"
    running.admin.with_code(secret_code).push("v1", {"a": b"plain bytes of a model"}, "disk")
    for path in running.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret_code.encode() not in content, path
            assert b"plain bytes of a model" not in content, path


def test_guessing_gets_slower_for_who_guesses_and_for_nobody_else(running: Installation, owner: Caller) -> None:
    owner.push("v1", {"a": b"x"}, "guessed")
    guesser = running.caller(principal("guesser", "models.read")).with_code("wrong")
    for _ in range(6):
        with refused(*REFUSED):
            guesser.read("v1", "a", "guessed")
    throttled = (grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCESS_CODE_THROTTLED")
    with refused(*throttled):
        guesser.read("v1", "a", "guessed")
    with refused(*throttled):
        # Nor is it told that this one would be right.
        guesser.with_code(CODE).read("v1", "a", "guessed")
    assert owner.read("v1", "a", "guessed") == b"x"
    assert running.caller(OTHER).with_code(CODE).read("v1", "a", "guessed") == b"x"
    running.clock.ahead += timedelta(minutes=16)
    running.admin.collect()
    assert guesser.with_code(CODE).read("v1", "a", "guessed") == b"x"


@contextmanager
def forgetful(running: Installation, who: Principal) -> Iterator[Caller]:
    """A caller of a replica that has not seen any code yet."""
    with running.models() as address, grpc.insecure_channel(address) as channel:
        yield Caller(channel, running.tokens, who, CODE)


@pytest.mark.slow
@pytest.mark.row("S0.4")
def test_many_who_guess_share_one_budget_and_lock_out_nobody_who_knows_the_code(
    running: Installation, owner: Caller
) -> None:
    """Keys are cheap: who may make many gets no more guesses by it, and keeps none of the version's users away."""
    model = "beleaguered"
    owner.push("v1", {"a": b"x"}, model)
    reader = principal("reader", "models.read")
    assert running.caller(reader).with_code(CODE).read("v1", "a", model) == b"x"
    throttled = (grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCESS_CODE_THROTTLED")
    answers = []
    for number in range(24):
        stranger = running.caller(principal(f"stranger-{number}", "models.read")).with_code(f"guess {number}")
        with pytest.raises(grpc.RpcError) as caught:
            stranger.read("v1", "a", model)
        answers.append(caught.value.code())
    assert answers == [REFUSED[0]] * 21 + [throttled[0]] * 3
    late = principal("late", "models.read")
    with refused(*throttled):
        # Nor is it told that this one would be right.
        running.caller(late).with_code(CODE).read("v1", "a", model)
    for known in (ADMINISTRATOR, reader):
        with forgetful(running, known) as caller:
            with refused(*REFUSED):
                caller.with_code("a slip").read("v1", "a", model)
            assert caller.read("v1", "a", model) == b"x", "locked out by strangers"
    running.clock.ahead += timedelta(minutes=16)
    assert running.caller(late).with_code(CODE).read("v1", "a", model) == b"x"
    with closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db")) as connection:
        budget = "SELECT count FROM access_code_guesses WHERE presenter = '' ORDER BY blocked_until DESC LIMIT 1"
        assert connection.execute(budget).fetchone() == (21,), "a right code is nobody's guess"


def test_who_knows_the_code_has_a_budget_too(running: Installation, owner: Caller) -> None:
    owner.push("v1", {"a": b"x"}, "known")
    for number in range(6):
        with refused(*REFUSED):
            owner.with_code(f"wrong {number}").read("v1", "a", "known")
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCESS_CODE_THROTTLED"):
        owner.with_code("wrong again").read("v1", "a", "known")


def test_a_right_code_forgets_the_wrong_ones(running: Installation, owner: Caller) -> None:
    owner.push("v1", {"a": b"x"}, "forgiven")
    typist = running.caller(principal("typist", "models.read"))
    for _ in range(4):
        with refused(*REFUSED):
            typist.with_code("typo").read("v1", "a", "forgiven")
    assert typist.with_code(CODE).read("v1", "a", "forgiven") == b"x"
    with closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db")) as connection:
        counted = connection.execute("SELECT count FROM access_code_guesses WHERE presenter = 'key:typist'")
        assert counted.fetchall() == [(0,)]


def test_guesses_are_forgotten_in_the_end(running: Installation, owner: Caller) -> None:
    owner.push("v1", {"a": b"x"}, "forgotten")
    with refused(*REFUSED):
        running.caller(principal("passer-by", "models.read")).with_code("wrong").read("v1", "a", "forgotten")
    running.clock.ahead += timedelta(days=2)
    running.admin.collect()
    with closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db")) as connection:
        counted = "SELECT count(*) FROM access_code_guesses"
        assert connection.execute(f"{counted} WHERE opened_at IS NULL").fetchone() == (0,)
        assert connection.execute(f"{counted} WHERE opened_at IS NOT NULL").fetchone() > (0,)
        running.clock.ahead += timedelta(days=90)
        running.admin.collect()
        assert connection.execute(counted).fetchone() == (0,)


def test_a_deleted_protected_version_is_gone_for_its_code_too(running: Installation, owner: Caller) -> None:
    owner.push("v1", {"a": b"x"}, "deleted")
    assert running.admin.delete("v1", "deleted").shredded_chunks == 1
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        owner.read("v1", "a", "deleted")


def test_collection_keeps_the_keys_of_open_protected_uploads(running: Installation, owner: Caller) -> None:
    upload = owner.create("v1", "kept").upload_id
    owner.write(upload, [b"x"], "kept")
    running.clock.ahead += timedelta(hours=2)
    running.admin.collect()
    owner.commit(upload, {"a": b"x"}, "kept")
    assert owner.read("v1", "a", "kept") == b"x"


def test_a_file_is_put_and_got_with_a_code(running: Installation, owner: Caller) -> None:
    owner.put("v1", "a.bin", [b"some ", b"bytes"], "put")
    assert owner.read("v1", "a.bin", "put") == b"some bytes"
    with refused(*REFUSED):
        running.admin.read("v1", "a.bin", "put")


def test_a_sealed_key_opens_under_its_code_and_context_alone() -> None:
    key, code = bytes(range(32)), AccessCode("ein Schlüssel")
    sealed = access_codes.seal(code, key, "here")
    assert len(sealed) == 80
    assert access_codes.unseal(code, sealed, "here") == key
    assert access_codes.unseal(code, sealed, "there") is None
    assert access_codes.unseal(AccessCode("ein Schluessel"), sealed, "here") is None
    for damaged in (b"", sealed[:-1], sealed + b"x", bytes([sealed[0] + 1]) + sealed[1:], sealed[:-1] + b"\0"):
        assert access_codes.unseal(code, damaged, "here") is None


def test_a_sealed_key_does_not_choose_what_a_guess_costs() -> None:
    """Whoever can write the row could otherwise have a process take gigabytes, or none."""
    sealed = bytearray(access_codes.seal(AccessCode("x"), bytes(32), "c"))
    sealed[1] = 30
    assert access_codes.unseal(AccessCode("x"), bytes(sealed), "c") is None


@pytest.mark.parametrize("text", ["", "x" * 1025, "\udc80"])
def test_codes_are_bounded(text: str) -> None:
    with pytest.raises(AccessCodeInvalid):
        AccessCode(text)


@pytest.mark.row("S0.10")
def test_a_code_is_never_printed() -> None:
    assert "geheim" not in repr(AccessCode("geheim", "key:a"))


def _chunks(running: Installation) -> int:
    with closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db")) as connection:
        [count] = connection.execute("SELECT count(*) FROM chunks").fetchone()
    return int(count)
