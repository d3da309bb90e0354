"""Access codes and keys of managers through the gateway: S0's REST and gRPC."""

import hashlib
import json
import time
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from strongroom import Client
from strongroom.errors import PermissionDenied
from tests.models_installation import installation
from tests.stack import RunningStack, Stack
from tests.terminal import Terminal
from tests.test_gateway_rest import Answer, admin, assert_problem, call
from tests.test_managers_gateway import create, curl, key_with, load, upload, weights
from tests.test_managers_stored import Managers

CODE = "secure password + 1"


@pytest.fixture
def manager(stack: Stack) -> str:
    return create(stack)


def save(stack: Stack, manager: str, **body: Any) -> Answer:
    return admin(stack, "POST", f"/api/managers/{manager}/models/save", {"model_name": "random_forest_v1", **body})


def refused(answer: Answer) -> None:
    assert_problem(answer, 403, "ACCESS_CODE_REFUSED")


@pytest.mark.row("S0.3")
@pytest.mark.row("S0.4")
def test_a_model_saved_with_a_code_opens_with_it_alone(stack: Stack, manager: str, tmp_path: Path) -> None:
    uploaded = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    saved = save(stack, manager, access_code=CODE, compression_level=5)
    assert saved.json["details"]["encrypted"] is True
    path = saved.json["details"]["filepath"]
    answers = [load(stack, manager, path), load(stack, manager, path, access_code="wrong")]
    for answer in answers:
        refused(answer)
    assert answers[0].json["detail"] == answers[1].json["detail"]
    assert load(stack, manager, path, access_code=CODE).json["details"]["model_name"] == "random_forest_v1"
    # An administrator's key is no way around it: not by the upload's own path, nor by its version.
    refused(load(stack, manager, uploaded))
    base = f"/api/v1/managers/{manager}/models/random_forest_v1/versions"
    [version] = admin(stack, "GET", base).json["versions"]
    assert version["protected"]
    file = f"{base}/{version['version']}/files/random_forest_v1.pkl"
    refused(admin(stack, "GET", file))
    opened = call(stack, "GET", file, {"X-API-Key": stack.admin_key, "X-Access-Code": CODE})
    assert opened.body == (tmp_path / "random_forest_v1.pkl").read_bytes()


@pytest.mark.row("S0.6")
def test_a_protected_file_is_verified_without_its_code(stack: Stack, manager: str, tmp_path: Path) -> None:
    upload(stack, manager, weights(tmp_path))
    path = save(stack, manager, access_code=CODE).json["details"]["filepath"]
    answer = admin(stack, "POST", f"/api/managers/{manager}/verify?filepath={path}")
    assert answer.json == {"filepath": path, "is_valid": True, "encryption_status": "encrypted"}


@pytest.mark.row("S0.3")
def test_a_protected_model_is_saved_again_with_its_code_alone(stack: Stack, manager: str, tmp_path: Path) -> None:
    upload(stack, manager, weights(tmp_path))
    assert save(stack, manager, access_code=CODE).status == 200
    refused(save(stack, manager, filepath="other.pkl"))
    refused(save(stack, manager, filepath="other.pkl", access_code="wrong"))
    assert save(stack, manager, filepath="other.pkl", access_code=CODE).status == 200
    assert load(stack, manager, "other.pkl", access_code=CODE).status == 200


@pytest.mark.row("S0.3")
def test_who_may_write_cannot_lock_others_out_of_their_uploads(stack: Stack, manager: str, tmp_path: Path) -> None:
    path = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    key = key_with(stack, permissions=["models.read", "models.write"], scopes=[f"managers/{manager}/**"])
    body = json.dumps({"model_name": "random_forest_v1", "access_code": CODE}).encode()
    assert call(stack, "POST", f"/api/managers/{manager}/models/save", {"X-API-Key": key}, body).status == 200
    assert load(stack, manager, path).status == 200


@pytest.mark.row("S0.8")
@pytest.mark.parametrize("way", ["query", "header", "header before query"])
def test_an_upload_is_protected_by_the_code_in_query_or_header(
    stack: Stack, manager: str, tmp_path: Path, way: str
) -> None:
    query = f"?access_code={urllib.parse.quote_plus(CODE if way == 'query' else 'another')}" if "query" in way else ""
    headers = ("-H", f"x-access-code: {CODE}") if "header" in way else ()
    form = ("-F", f"model_file=@{weights(tmp_path)}")
    status, answer = curl(stack, f"/api/managers/{manager}/upload-model{query}", *headers, *form)
    assert status == 201, answer
    path = answer["details"]["filepath"]
    refused(load(stack, manager, path))
    assert load(stack, manager, path, access_code=CODE).status == 200


@pytest.mark.row("S0.8")
@pytest.mark.parametrize("code", ["a%0Ab", "%00", "ü", "a" * 1025])
def test_a_code_that_no_header_can_carry_is_400(stack: Stack, manager: str, code: str, tmp_path: Path) -> None:
    path = f"/api/managers/{manager}/upload-model?access_code={urllib.parse.quote(code, safe='%')}"
    status, answer = curl(stack, path, "-F", f"model_file=@{weights(tmp_path)}")
    assert (status, answer["reason"]) == (400, "ACCESS_CODE_INVALID")


@pytest.mark.row("S0.10")
def test_codes_and_passwords_are_never_logged(tmp_path: Path) -> None:
    """In a stack of its own, stopped so that every log is written."""
    marks = [f"mark-{name}-{uuid.uuid4().hex}" for name in ("query", "header", "save", "load", "password")]
    running = RunningStack(tmp_path / "data")
    with running as stack:
        manager = create(stack)
        form = ("-F", f"model_file=@{weights(tmp_path)}")
        for query, header in ((f"?access_code={marks[0]}", ()), ("", ("-H", f"x-access-code: {marks[1]}"))):
            status, answer = curl(stack, f"/api/managers/{manager}/upload-model{query}", *header, *form)
            assert status == 201
            for code in (marks[3], marks[2]):
                assert code not in load(stack, manager, answer["details"]["filepath"], access_code=code).body.decode()
        refused(save(stack, manager, access_code=marks[2]))
        assert rotate(stack, manager, new_password=marks[4]).status == 200
        curl(stack, f"/api/managers/{manager}/unknown?access_code={marks[0]}", *form)
        curl(stack, f"/api/managers/nobody/upload-model?access_code={marks[0]}", *form)
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert any(path.name == "gateway.log" for path in kept)
    for path in kept:
        data = path.read_bytes()
        assert not [mark for mark in marks if mark.encode() in data], path


def rotate(stack: Stack, manager: str, **body: Any) -> Answer:
    return admin(stack, "POST", f"/api/managers/{manager}/rotate-key", body)


@pytest.mark.row("S0.7")
@pytest.mark.parametrize("password", ["new_secure_password", None])
def test_the_key_is_rotated_and_every_model_stays_readable(
    stack: Stack, manager: str, tmp_path: Path, password: str | None
) -> None:
    path = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    (tmp_path / "locked").mkdir()
    form = ("-F", f"model_file=@{weights(tmp_path / 'locked', 'locked.pkl')}")
    _, locked = curl(stack, f"/api/managers/{manager}/upload-model", "-H", f"x-access-code: {CODE}", *form)
    answer = rotate(stack, manager, new_password=password)
    assert answer.status == 200, answer.body
    details = answer.json.pop("details")
    assert answer.json["message"] == "Encryption key rotated successfully"
    assert details["using_password"] is (password is not None)
    assert isinstance(details["timestamp"], int)
    assert abs(details["timestamp"] - time.time()) < 60
    assert load(stack, manager, path).status == 200
    assert load(stack, manager, locked["details"]["filepath"], access_code=CODE).status == 200
    assert upload(stack, manager, weights(tmp_path))["success"]
    assert admin(stack, "POST", f"/api/managers/{manager}/verify?filepath={path}").json["is_valid"]


@pytest.mark.row("S0.7")
@pytest.mark.row("S0.11")
@pytest.mark.parametrize("config", [{"use_scrypt": False}, {"use_scrypt": False, "hash_algorithm": "sha256"}])
def test_a_password_becomes_a_key_by_pbkdf2_as_well(stack: Stack, tmp_path: Path, config: dict[str, Any]) -> None:
    manager = create(stack, key_iterations=100_000, **config)
    path = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    assert rotate(stack, manager, new_password="correct horse").json["details"]["using_password"]
    assert load(stack, manager, path).status == 200


@pytest.mark.row("S0.7")
def test_a_manager_without_encryption_has_no_key_to_rotate(stack: Stack, tmp_path: Path) -> None:
    manager = create(stack, enable_encryption=False)
    path = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    assert_problem(rotate(stack, manager), 400, "MANAGER_NOT_ENCRYPTED")
    assert save(stack, manager).json["details"]["encrypted"] is False
    answer = admin(stack, "POST", f"/api/managers/{manager}/verify?filepath={path}")
    assert answer.json == {"filepath": path, "is_valid": True, "encryption_status": "unencrypted"}
    assert_problem(save(stack, manager, access_code=CODE), 400, "MANAGER_NOT_ENCRYPTED")
    assert admin(stack, "GET", "/api/managers").json[manager]["encryption_enabled"] is False


@pytest.mark.row("S0.7")
def test_rotating_needs_a_manager_and_the_right_to_write_it(stack: Stack, manager: str) -> None:
    assert_problem(rotate(stack, "unknown"), 404, "MANAGER_NOT_FOUND")
    assert_problem(rotate(stack, manager, new_password=""), 400, "FIELD_INVALID")
    headers = {"X-API-Key": key_with(stack, permissions=["models.*"], scopes=[f"managers/{manager}/models/*"])}
    answer = call(stack, "POST", f"/api/managers/{manager}/rotate-key", headers, b"{}")
    assert_problem(answer, 403, "PERMISSION_MISSING")


@pytest.mark.row("S0.3")
@pytest.mark.row("S0.7")
def test_the_client_and_the_command_line(stack: Stack, manager: str, tmp_path: Path) -> None:
    file, code_file = weights(tmp_path, "scorer.bin"), tmp_path / "code"
    code_file.write_text(f"{CODE}\n")
    strongroom = Terminal.of(stack)
    with Client(stack.url, api_key=stack.admin_key) as client:
        path = client.managers.upload(manager, file, access_code=CODE).filepath
        with pytest.raises(PermissionDenied):
            client.managers.load(manager, path)
        assert client.managers.load(manager, path, access_code=CODE).model_name == "scorer"
        assert client.managers.rotate_key(manager, new_password="correct horse").using_password
    assert strongroom("managers", "rotate-key", manager).out == f"rotated the key of {manager}\n"
    assert strongroom("managers", "load", manager, path).status == 1
    options = ("--access-code-file", code_file)
    assert strongroom("managers", "load", manager, path, *options).out == f"{path} is scorer\n"
    assert (
        strongroom("managers", "save", manager, "scorer", *options).out
        == "saved scorer: ./models/project1/scorer.pkl\n"
    )
    assert strongroom("managers", "upload", manager, file, *options).status == 0


@pytest.mark.row("S0.3")
@pytest.mark.parametrize("level", [0, 9])
def test_a_file_is_compressed_as_it_is_saved(tmp_path: Path, level: int) -> None:
    """Where its bytes are not shared with what is stored already."""
    text = b"a line that comes again and again, " * 100_000

    def stored() -> int:
        return sum(path.stat().st_size for path in running.stored("packs"))

    with installation(tmp_path) as running:
        managers = Managers(running)
        running.admin.push("v1", {"scorer.bin": text})
        before = stored()
        managers.SaveModel(manager_id="default", model_name="scorer", access_code=CODE, compression_level=level)
        grown = stored() - before
        assert grown < len(text) // 20 if level else grown > len(text) * 0.9
        assert managers.LoadModel(manager_id="default", filepath="scorer.pkl", access_code=CODE).success


@pytest.mark.row("S0.12")
def test_a_protected_model_has_a_protected_copy(stack: Stack, tmp_path: Path) -> None:
    manager = create(stack, enable_quantization=True)
    save_file({"w": np.ones((64, 64), np.float32)}, tmp_path / "random_forest_v1.safetensors")
    upload(stack, manager, tmp_path / "random_forest_v1.safetensors")
    copy = save(stack, manager, access_code=CODE).json["details"]["quantized"]
    refused(load(stack, manager, copy["filepath"]))
    assert load(stack, manager, copy["filepath"], access_code=CODE).status == 200
    versions = admin(stack, "GET", f"/api/v1/managers/{manager}/models/random_forest_v1/versions").json["versions"]
    assert [version["protected"] for version in versions] == [True]
    assert copy["filepath"] == "./models/project1/random_forest_v1.int8.safetensors"


@pytest.mark.row("S0.4", "B2")
def test_what_is_seen_of_a_protected_version_without_its_code(stack: Stack, manager: str, tmp_path: Path) -> None:
    """That it is there, and what people wrote about it: no name, size or digest of a file, wherever one asks."""
    folder, model = tmp_path / "weights", f"m-{uuid.uuid4().hex}"
    folder.mkdir()
    hidden = {"acquisition-of-acme.bin": b"a" * 12_345, "sub/layoffs.json": b"b" * 6_789}
    for name, content in hidden.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push(model, folder, version="v1", manager=manager, access_code=CODE)
        client.catalog.update_version(model, "v1", manager=manager, tags={"team": "risk"})
    base = f"/api/v1/managers/{manager}/models"
    version = f"{base}/{model}/versions/v1"
    seen = {
        path: admin(stack, method, path, body)
        for method, path, body in (
            ("GET", base, None),
            ("GET", f"{base}/{model}", None),
            ("GET", f"{base}/{model}/versions", None),
            ("GET", version, None),
            ("POST", f"{version}:verify", {}),
            ("GET", f"{version}/metrics", None),
            ("GET", f"{version}/lineage", None),
            ("GET", f"/api/v1/managers/{manager}/search/versions?regex=.", None),
            ("GET", f"/api/managers/{manager}/models", None),
            ("GET", f"{version}/files/acquisition-of-acme.bin", None),
            ("GET", f"{version}/files/no-such-file", None),
        )
    }
    for path, answer in seen.items():
        told = answer.body.decode()
        secret = ("acquisition", "layoffs", "12345", "6789", *(hashlib.sha256(c).hexdigest() for c in hidden.values()))
        asked = path if path in told else ""
        assert not [text for text in secret if text in told.replace(asked, "")], path
    shown = seen[version].json
    assert (shown["protected"], shown["files_count"], shown["size_bytes"]) == (True, 2, 19_134)
    assert (shown["tags"], shown.get("files", [])) == ({"team": "risk"}, [])
    # Whether a file is there is not told either.
    for file in ("acquisition-of-acme.bin", "no-such-file"):
        refused(seen[f"{version}/files/{file}"])
