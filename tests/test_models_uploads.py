"""Uploads: opened, resumed, committed, given up; bound to who opened them."""

import re
import threading
from collections.abc import Iterator

import grpc
import pytest

from strongroom.chunking import digest
from strongroom.models.v1 import weights_pb2
from tests.models_installation import MODEL, OTHER, WRITER, Installation, installation, noise, principal, refused
from tests.uploads import chunks_of, uploaded_file

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("uploads")) as made:
        yield made


CONTENT = noise(1, 5 << 20)


def test_a_pushed_folder_reads_back(running: Installation) -> None:
    files = {"weights.bin": CONTENT, "config/a.json": b"{}", "empty": b""}
    version = running.admin.push("folder", files)
    assert (version.size_bytes, version.files_count, version.created_by) == (len(CONTENT) + 2, 3, "key:admin")
    assert {file.path: file.sha256_verified for file in version.files} == dict.fromkeys(files, False)
    assert {path: running.admin.read("folder", path) for path in files} == files
    assert running.admin.show("folder") == version


def test_an_interrupted_push_resumes_with_what_arrived(running: Installation) -> None:
    content = noise(2, 6 << 20)
    chunks = chunks_of("w", content)
    first = running.admin.create("resumed")
    running.admin.write(first.upload_id, chunks[:2])
    again = running.admin.create("resumed")
    assert (again.upload_id, first.resumed, again.resumed) == (first.upload_id, False, True)
    present = running.admin.has(again.upload_id, chunks)
    assert present == [1, 1] + [0] * (len(chunks) - 2)
    running.admin.write(again.upload_id, chunks[2:])
    running.admin.commit(again.upload_id, {"w": content})
    assert running.admin.read("resumed", "w") == content


def test_a_second_commit_answers_as_the_first(running: Installation) -> None:
    upload = running.admin.create("twice").upload_id
    running.admin.write(upload, [b"x"])
    first = running.admin.commit(upload, {"a": b"x"})
    assert running.admin.commit(upload, {"a": b"x"}) == first
    with refused(Code.NOT_FOUND, "UPLOAD_NOT_FOUND"):
        running.admin.write(upload, [b"y"])
    with refused(Code.FAILED_PRECONDITION, "UPLOAD_COMMITTED"):
        running.admin.abort(upload)


def test_an_existing_version_is_refused_and_stays(running: Installation) -> None:
    running.admin.push("taken", {"a": b"first"})
    with refused(Code.ALREADY_EXISTS, "VERSION_EXISTS"):
        running.admin.create("taken")
    with refused(Code.ALREADY_EXISTS, "VERSION_EXISTS"):
        running.admin.put("taken", "a", [b"second"])
    assert running.admin.read("taken", "a") == b"first"


@pytest.mark.parametrize("name", ["latest", ".", ".."])
def test_reserved_names_are_refused(running: Installation, name: str) -> None:
    with refused(Code.INVALID_ARGUMENT, "NAME_RESERVED"):
        running.admin.create(name)
    with refused(Code.INVALID_ARGUMENT, "NAME_RESERVED"):
        running.admin.put(name, "a", [b""])
    with refused(Code.INVALID_ARGUMENT, "NAME_RESERVED"):
        running.admin.create("v", model=name)


def test_without_a_version_each_push_gets_a_moment_of_its_own(running: Installation) -> None:
    one, two = running.admin.create(""), running.admin.create("")
    assert re.fullmatch(r"\d{8}T\d{6}Z", one.version)
    assert one.version != two.version


def test_an_unknown_manager_is_not_found_but_only_for_who_may_ask(running: Installation) -> None:
    request = weights_pb2.CreateUploadRequest(manager_id="nobody", model_name=MODEL, version="v")
    with refused(Code.NOT_FOUND, "MANAGER_NOT_FOUND"):
        running.admin.call(running.admin.weights.CreateUpload, request)
    scoped = running.caller(principal("scoped", "models.write", resources=("managers/default/**",)))
    with refused(Code.PERMISSION_DENIED, "PERMISSION_MISSING"):
        scoped.call(scoped.weights.CreateUpload, request)


def test_an_upload_of_somebody_else_or_of_another_model_does_not_exist(running: Installation) -> None:
    upload = running.admin.create("mine").upload_id
    other = running.caller(OTHER)
    for call in (
        lambda: other.has(upload, [b"x"]),
        lambda: other.write(upload, [b"x"]),
        lambda: other.commit(upload, {"a": b""}),
        lambda: other.abort(upload),
        lambda: running.admin.has(upload, [b"x"], model="another"),
        lambda: running.admin.write(upload, [b"x"], model="another"),
        lambda: running.admin.commit(upload, {"a": b""}, model="another"),
        lambda: running.admin.has("01ARZ3NDEKTSV4RRFFQ69G5FAV", [b"x"]),
    ):
        with refused(Code.NOT_FOUND, "UPLOAD_NOT_FOUND"):
            call()


def test_of_two_uploads_of_one_version_the_first_commit_wins(running: Installation) -> None:
    callers = [running.admin, running.caller(OTHER), running.caller(WRITER)]
    uploads = [caller.create("race").upload_id for caller in callers]
    assert len(set(uploads)) == 3
    contents = [noise(seed, 300_000) for seed in (10, 11, 12)]
    for caller, upload, content in zip(callers, uploads, contents, strict=True):
        caller.write(upload, [content])
    outcomes: list[object] = [None] * 3
    barrier = threading.Barrier(3)

    def commit(number: int) -> None:
        barrier.wait()
        try:
            file = uploaded_file("a", contents[number])
            file.chunk_digests, file.chunk_lengths[:] = digest(contents[number]), [len(contents[number])]
            callers[number].commit(uploads[number], [file])
            outcomes[number] = "won"
        except grpc.RpcError as error:
            outcomes[number] = error.code()

    threads = [threading.Thread(target=commit, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["StatusCode.ALREADY_EXISTS", "StatusCode.ALREADY_EXISTS", "won"]
    assert running.admin.read("race", "a") == contents[outcomes.index("won")]


def test_commits_of_one_upload_at_a_time_give_one_version(running: Installation) -> None:
    upload = running.admin.create("together").upload_id
    running.admin.write(upload, [b"together"])
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(running.admin.commit(upload, {"a": b"together"})))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    manifests = len(running.stored("manifests"))
    running.admin.collect()
    assert len(running.stored("manifests")) == manifests, "the losers' manifests are gone already"


def test_a_chunk_of_the_manager_is_not_stored_again(running: Installation) -> None:
    content = noise(3, 3 << 20)
    running.admin.push("dedup-1", {"a": content})
    packs = running.stored("packs")
    upload = running.admin.create("dedup-2", model="copy").upload_id
    chunks = chunks_of("a", content)
    assert running.admin.has(upload, chunks, model="copy") == [1] * len(chunks)
    totals = running.admin.write(upload, chunks, model="copy")
    assert (totals.chunks_received, totals.chunks_deduplicated) == (len(chunks), len(chunks))
    assert (totals.bytes_received, totals.bytes_stored) == (len(content), 0)
    running.admin.commit(upload, {"a": content}, model="copy")
    assert running.stored("packs") == packs
    assert running.admin.read("dedup-2", "a", model="copy") == content


def test_a_writer_who_may_not_read_hears_of_its_own_chunks_only(running: Installation) -> None:
    secret = noise(4, 700_000)
    running.admin.push("secret", {"a": secret})
    chunks = chunks_of("a", secret)
    for who in (WRITER, principal("cut", "models.*", deny="managers/default/models/hidden")):
        caller = running.caller(who)
        upload = caller.create(f"probe-{who.name}").upload_id
        assert caller.has(upload, chunks) == [0] * len(chunks)
        with refused(Code.FAILED_PRECONDITION, "CHUNKS_MISSING") as info:
            caller.commit(upload, {"a": secret})
        assert info.metadata["digests"].split(",") == [digest(chunk).hex() for chunk in chunks]
        assert info.metadata["count"] == str(len(chunks))
        totals = caller.write(upload, chunks)
        assert (totals.chunks_deduplicated, totals.bytes_stored) == (0, 0), "either would tell that the store had them"
        assert caller.has(upload, chunks) == [1] * len(chunks)
        caller.commit(upload, {"a": secret})


def test_missing_chunks_are_named_up_to_a_number_that_fits_an_error(running: Installation) -> None:
    upload = running.admin.create("missing").upload_id
    missing = [digest(str(number).encode()) for number in range(500)]
    file = weights_pb2.UploadedFile(
        path="a", sha256=bytes(32), chunk_digests=b"".join(missing), chunk_lengths=[1] * len(missing)
    )
    with refused(Code.FAILED_PRECONDITION, "CHUNKS_MISSING") as info:
        running.admin.commit(upload, [file])
    assert info.metadata["count"] == "500"
    assert info.metadata["digests"].split(",") == [value.hex() for value in missing[:64]]


def test_an_aborted_upload_is_over(running: Installation) -> None:
    upload = running.admin.create("aborted").upload_id
    running.admin.write(upload, [b"z"])
    running.admin.abort(upload)
    running.admin.abort(upload)
    with refused(Code.NOT_FOUND, "UPLOAD_NOT_FOUND"):
        running.admin.write(upload, [b"z"])
    assert running.admin.create("aborted").upload_id != upload


@pytest.mark.parametrize(
    "paths",
    [["/a"], ["a//b"], ["../a"], ["a/./b"], ["a", "a"], ["a", "a/b"], ["a/b", "a!", "a"], ["a\0"], ["a" * 1025]],
)
def test_paths_that_cannot_stand_side_by_side_are_refused(running: Installation, paths: list[str]) -> None:
    upload = running.admin.create("paths").upload_id
    files = [weights_pb2.UploadedFile(path=path, sha256=bytes(32)) for path in paths]
    with pytest.raises(grpc.RpcError) as caught:
        running.admin.commit(upload, files)
    assert caught.value.code() == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("digests", "lengths"),
    [(digest(b"x"), []), (digest(b"x"), [1, 1]), (b"short", [1]), (digest(b"x"), [0]), (digest(b"x"), [(4 << 20) + 1])],
)
def test_chunk_lists_that_do_not_fit_are_refused(running: Installation, digests: bytes, lengths: list[int]) -> None:
    upload = running.admin.create("lists").upload_id
    running.admin.write(upload, [b"x"])
    file = weights_pb2.UploadedFile(path="a", sha256=bytes(32), chunk_digests=digests, chunk_lengths=lengths)
    with refused(Code.INVALID_ARGUMENT, "FILES_INVALID"):
        running.admin.commit(upload, [file])


def test_a_chunk_is_as_long_as_it_is(running: Installation) -> None:
    upload = running.admin.create("lying").upload_id
    running.admin.write(upload, [b"xyz"])
    file = weights_pb2.UploadedFile(path="a", sha256=bytes(32), chunk_digests=digest(b"xyz"), chunk_lengths=[4])
    with refused(Code.INVALID_ARGUMENT, "FILES_INVALID"):
        running.admin.commit(upload, [file])


def test_digests_come_in_units_of_32_bytes(running: Installation) -> None:
    upload = running.admin.create("units").upload_id
    request = weights_pb2.HasChunksRequest(manager_id="default", model_name=MODEL, upload_id=upload, digests=bytes(33))
    with refused(Code.INVALID_ARGUMENT, "DIGESTS_INVALID"):
        running.admin.call(running.admin.weights.HasChunks, request)
