"""Deletion and garbage collection: what goes, what stays, and that no upload in flight loses anything."""

import dataclasses
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import grpc
import pytest

from strongroom.models.v1 import maintenance_pb2, weights_pb2
from tests.models_installation import WRITER, Installation, installation, noise, refused
from tests.uploads import chunks_of

Code = grpc.StatusCode
MIB = 1 << 20


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("collection")) as made:
        yield made


def rows(running: Installation, query: str, service: str = "models") -> list[tuple]:
    with closing(sqlite3.connect(running.folder / "db" / f"strongroom-{service}.db")) as connection:
        return connection.execute(query).fetchall()


def assert_nothing_left(running: Installation) -> None:
    assert running.stored() == []
    assert rows(running, "SELECT * FROM chunks") == []
    assert rows(running, "SELECT * FROM packs") == []
    assert rows(running, "SELECT * FROM upload_chunks") == []
    assert running.admin.collect(dry_run=True) == maintenance_pb2.CollectGarbageResponse()


def test_deleting_shreds_what_nobody_else_uses(running: Installation) -> None:
    shared, own = noise(1, 2 * MIB), noise(2, 3 * MIB)
    running.admin.push("v1", {"shared": shared, "own": own})
    running.admin.push("v2", {"shared": shared}, model="other")
    salts = {row[0] for row in rows(running, "SELECT salt FROM chunks")}
    receipt = running.admin.delete("v1")
    assert (receipt.shredded_chunks, receipt.shared_chunks) == (
        len(chunks_of("own", own)),
        len(chunks_of("shared", shared)),
    )
    assert running.admin.read("v2", "shared", model="other") == shared
    with refused(Code.NOT_FOUND, "MODEL_NOT_FOUND"):
        running.admin.read("v1", "own")
    kept = {row[0] for row in rows(running, "SELECT salt FROM chunks")}
    assert len(salts - kept) == receipt.shredded_chunks
    stored = b"".join(path.read_bytes() for path in (running.folder / "db").glob("strongroom-models*"))
    assert not any(salt in stored for salt in salts - kept), "a shredded salt is still on disk"
    assert running.admin.delete("v2", model="other").shredded_chunks == receipt.shared_chunks
    running.admin.collect()
    assert_nothing_left(running)


def test_deleting_destroys_the_data_key_and_the_manifest(running: Installation) -> None:
    running.admin.push("v1", {"a": b"x"})
    [(key,)] = rows(running, "SELECT data_key_id FROM versions")
    before = rows(running, "SELECT count(*) FROM keys", "secrets")
    running.admin.delete("v1")
    assert rows(running, "SELECT count(*) FROM keys", "secrets") == [(before[0][0] - 1,)]
    assert key not in {row[0] for row in rows(running, "SELECT * FROM keys", "secrets")}
    assert running.stored("manifests") == []
    with refused(Code.NOT_FOUND, "MODEL_NOT_FOUND"):
        running.admin.delete("v1")
    assert list(running.admin.list_models().models) == []


def test_a_chunk_an_upload_holds_survives_the_deletion_of_its_version(running: Installation) -> None:
    content = noise(3, MIB)
    running.admin.push("v1", {"a": content})
    upload = running.admin.create("v2").upload_id
    assert all(running.admin.has(upload, chunks_of("a", content)))
    receipt = running.admin.delete("v1")
    assert (receipt.shredded_chunks, receipt.shared_chunks) == (0, len(chunks_of("a", content)))
    running.admin.collect()
    running.admin.commit(upload, {"a": content})
    assert running.admin.read("v2", "a") == content


def test_chunks_committed_without_a_lease_may_be_gone_and_are_named(running: Installation) -> None:
    content = noise(4, MIB)
    running.admin.push("v1", {"a": content})
    upload = running.admin.create("v2").upload_id
    running.admin.delete("v1")
    with refused(Code.FAILED_PRECONDITION, "CHUNKS_MISSING"):
        running.admin.commit(upload, {"a": content})


def test_latest_is_not_deleted(running: Installation) -> None:
    running.admin.push("v1", {"a": b"x"})
    with refused(Code.INVALID_ARGUMENT, "NAME_RESERVED"):
        running.admin.delete("latest")


def test_an_abandoned_upload_expires_with_all_it_stored(running: Installation) -> None:
    upload = running.admin.create("v1").upload_id
    running.admin.write(upload, [noise(5, MIB)])
    assert running.admin.collect(None) == maintenance_pb2.CollectGarbageResponse()
    assert running.admin.collect() == maintenance_pb2.CollectGarbageResponse(), "the upload is in flight"
    running.clock.ahead = timedelta(hours=23)
    assert running.admin.has(upload, [noise(5, MIB)]) == [1]
    running.clock.ahead = timedelta(hours=46)
    assert running.admin.collect().expired_uploads == 0, "it lives on for a day from its last sign of life"
    running.clock.ahead = timedelta(hours=48)
    counted = running.admin.collect(dry_run=True)
    assert (counted.expired_uploads, counted.deleted_chunks, counted.deleted_packs) == (1, 1, 1)
    assert running.admin.has(upload, [noise(5, MIB)]) == [1], "a dry run changes nothing"


def test_an_expired_upload_is_collected(running: Installation) -> None:
    upload = running.admin.create("v1").upload_id
    running.admin.write(upload, [noise(5, MIB)])
    running.clock.ahead = timedelta(hours=25)
    collected = running.admin.collect()
    assert (collected.expired_uploads, collected.deleted_chunks, collected.deleted_packs) == (1, 1, 1)
    assert collected.freed_bytes > MIB
    assert_nothing_left(running)
    with refused(Code.NOT_FOUND, "UPLOAD_NOT_FOUND"):
        running.admin.write(upload, [b"x"])


def test_a_dead_pack_stays_a_day_for_those_who_read_it(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(6, MIB)})
    running.admin.delete("v1")
    assert running.admin.collect(None).deleted_packs == 0
    running.clock.ahead = timedelta(hours=25)
    assert running.admin.collect(None).deleted_packs == 1
    assert_nothing_left(running)


def test_what_a_crash_leaves_is_found(running: Installation) -> None:
    """Objects without rows: a pack not recorded, a manifest not committed, a file half written."""
    running.admin.push("v1", {"a": noise(7, MIB)})
    before = running.stored()
    weights = running.folder / "weights"
    pack = weights / "packs" / "ab" / ("ab" + "0" * 30)
    pack.parent.mkdir(exist_ok=True)
    manifests = weights / "manifests"
    manifests.mkdir(exist_ok=True)
    for path in (pack, manifests / "01arz3ndektsv4rrffq69g5fav", weights / ".tmp" / ("01" * 16)):
        path.write_bytes(b"left behind")
    assert running.admin.collect(None).deleted_manifests == 0, "younger than an hour: it may be in flight"
    collected = running.admin.collect()
    assert (collected.deleted_packs, collected.deleted_manifests, collected.deleted_temporary_files) == (1, 1, 1)
    assert collected.freed_bytes == 3 * len(b"left behind")
    assert running.stored() == before
    assert running.admin.verify("v1").is_valid


@pytest.mark.parametrize("name", ["packs/note.txt", "packs/ab/note.txt", f"packs/ab/{'cd' * 16}", "packs/ab/abcd"])
def test_what_is_no_pack_does_not_stop_collection(running: Installation, name: str) -> None:
    """Somebody's note in the store's folder: it is left alone, and the rest collected."""
    running.admin.push("v1", {"a": b"x"})
    running.admin.delete("v1")
    note = running.folder / "weights" / name
    note.parent.mkdir(exist_ok=True)
    note.write_text("not ours")
    assert running.admin.collect().deleted_packs == 1
    assert running.stored() == [note]


def test_a_key_that_no_version_refers_to_is_destroyed(running: Installation) -> None:
    """As after a crash between the data key and the commit: the row of the version is not there."""
    running.admin.push("v1", {"a": b"x"})
    with closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db", timeout=20)) as connection:
        for table in ("version_chunks", "versions", "models"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
        connection.commit()
    counted = running.admin.collect(dry_run=True)
    collected = running.admin.collect()
    assert counted == collected
    assert (collected.destroyed_keys, collected.deleted_manifests, collected.deleted_chunks) == (1, 1, 1)
    assert_nothing_left(running)
    running.admin.push("v1", {"a": b"x"})
    assert running.admin.read("v1", "a") == b"x", "the domain secret was not taken for garbage"


def test_a_removal_that_failed_is_made_up_for(running: Installation) -> None:
    running.admin.push("v1", {"a": b"x"})
    [manifest] = running.stored("manifests")
    folder = manifest.parent
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    folder.write_text("in the way")
    running.admin.delete("v1")
    folder.unlink()
    hidden.rename(folder)
    assert running.stored("manifests") == [manifest]
    assert running.admin.collect(None).deleted_manifests == 1
    assert running.stored("manifests") == []


@pytest.mark.slow
def test_collection_never_harms_an_upload_in_flight(running: Installation) -> None:
    """Collecting at full speed and with no minimum age beside uploads, resumes, deletions and reads."""
    done = threading.Event()
    failures: list[BaseException] = []

    def collect() -> None:
        while not done.is_set():
            running.admin.collect()

    def push(number: int) -> None:
        try:
            for turn in range(4):
                content = noise(100 + turn % 2, MIB) + noise(number * 10 + turn, MIB // 2)
                caller = running.caller(dataclasses.replace(running.admin.principal, id=f"key:{number}"))
                caller.push(f"v{turn}", {"w": content}, model=f"m{number}")
                assert caller.read(f"v{turn}", "w", model=f"m{number}") == content
                caller.put(f"p{turn}", "w", [content], model=f"m{number}")
                caller.delete(f"v{turn}", model=f"m{number}")
                assert caller.read(f"p{turn}", "w", model=f"m{number}") == content
        except BaseException as error:
            failures.append(error)

    collector = threading.Thread(target=collect)
    pushers = [threading.Thread(target=push, args=[number]) for number in range(4)]
    for thread in (collector, *pushers):
        thread.start()
    for thread in pushers:
        thread.join()
    done.set()
    collector.join()
    assert failures == []
    for number in range(4):
        for turn in range(4):
            assert running.admin.verify(f"p{turn}", model=f"m{number}").is_valid
            running.admin.delete(f"p{turn}", model=f"m{number}")
    running.admin.collect()
    assert_nothing_left(running)


def test_a_second_replica_shares_everything(running: Installation) -> None:
    running.admin.push("v1", {"a": b"x"})
    with running.models() as address, grpc.insecure_channel(address) as channel:
        replica = dataclasses.replace(running.admin, channel=channel)
        assert replica.read("v1", "a") == b"x"
        replica.push("v2", {"a": b"y"})
        replica.delete("v1")
    assert running.admin.read("v2", "a") == b"y"
    assert len(rows(running, "SELECT * FROM managers")) == 1


def test_who_may_not_maintain_may_not_collect(running: Installation) -> None:
    with refused(Code.PERMISSION_DENIED, "PERMISSION_MISSING"):
        running.caller(WRITER).collect()


def test_files_are_private(running: Installation) -> None:
    running.admin.push("v1", {"a": b"x"})
    for path in running.stored() + list((running.folder / "db").glob("strongroom-models*")):
        assert os.stat(path).st_mode & 0o077 == 0, path  # noqa: PTH116


def test_a_commit_is_whole_although_the_upload_was_written_in_many_streams(running: Installation) -> None:
    content = noise(8, 6 * MIB)
    chunks = chunks_of("w", content)
    upload = running.admin.create("v1").upload_id
    threads = [threading.Thread(target=running.admin.write, args=[upload, chunks]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.admin.commit(upload, {"w": content})
    assert running.admin.verify("v1").is_valid
    assert len(rows(running, "SELECT * FROM chunks")) == len(chunks)


def test_a_stream_that_breaks_keeps_what_is_sealed_only(running: Installation) -> None:
    upload = running.admin.create("v1").upload_id
    started = threading.Event()

    def messages() -> Iterator[weights_pb2.WriteChunksRequest]:
        header = weights_pb2.WriteChunksHeader(manager_id="default", model_name="scorer", upload_id=upload)
        yield weights_pb2.WriteChunksRequest(header=header)
        data = noise(9, MIB)
        yield weights_pb2.WriteChunksRequest(frame=weights_pb2.ChunkFrame(lengths=[MIB], data=data))
        started.set()
        time.sleep(1)

    admin = running.admin
    call = admin.weights.WriteChunks.future(messages(), metadata=admin.metadata, timeout=30)
    started.wait(10)
    time.sleep(0.2)
    call.cancel()
    deadline = time.monotonic() + 60
    while running.stored(".tmp"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert running.admin.has(upload, [noise(9, MIB)]) in ([0], [1])
    running.admin.write(upload, [noise(9, MIB)])
    running.admin.abort(upload)
    running.admin.collect()
    assert_nothing_left(running)
