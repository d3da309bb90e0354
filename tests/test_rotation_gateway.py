"""Rotation and access codes as a user has them: through the gateway, over gRPC, over REST, on the command line."""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
import requests

from strongroom import Client
from strongroom.errors import InvalidArgument, PermissionDenied
from tests.models_installation import noise
from tests.stack import STRONGROOM, Stack

WEIGHTS = noise(3, 2_000_000)
CODE = "only the owner knows"


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:12]}"


def manager_of(stack: Stack, **config: object) -> str:
    body = {"task_type": "regression", **config}
    answer = requests.post(f"{stack.url}/api/managers", json=body, headers={"X-API-Key": stack.admin_key}, timeout=20)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["details"]["manager_id"])


def run(stack: Stack, *arguments: str, status: int = 0) -> str:
    variables = os.environ | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    done = subprocess.run([STRONGROOM, *arguments], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if not status else done.stderr


@pytest.mark.row("B2")
@pytest.mark.row("S0.7")
@pytest.mark.row("S4.6")
def test_a_manager_is_rotated_and_reencrypted_over_grpc(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)
    manager = manager_of(stack)
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push("scorer", tmp_path / "weights.bin", version="v1", manager=manager)
        receipt = client.rotation.rotate(manager, password="a password")
        assert (receipt.from_version, receipt.to_version, receipt.rewrapped_keys) == (1, 2, 2)
        assert receipt.using_password
        assert client.rotation.receipts(manager) == [receipt]
        job = client.rotation.finished(client.rotation.reencrypt(manager))
        assert (job.state, job.versions_done, job.bytes_done) == ("done", 1, len(WEIGHTS))
        client.models.pull("scorer", tmp_path / "pulled.bin", version="v1", manager=manager)
    assert (tmp_path / "pulled.bin").read_bytes() == WEIGHTS


@pytest.mark.row("B2")
@pytest.mark.row("S4.6")
def test_a_manager_is_rotated_and_reencrypted_over_rest(stack: Stack) -> None:
    manager = manager_of(stack)
    session = requests.Session()
    session.headers["X-API-Key"] = stack.admin_key
    at = f"{stack.url}/api/v1/managers/{manager}"
    assert session.put(f"{at}/models/m/versions/v1/files/a.bin", data=WEIGHTS, timeout=30).status_code == 201
    rotated = session.post(f"{at}:rotateKeys", json={}, timeout=30)
    assert (rotated.status_code, rotated.json()["rewrapped_keys"]) == (200, 2)
    assert session.get(f"{at}/rotations", timeout=30).json()["rotations"] == [rotated.json()]
    begun = session.post(f"{at}:reencrypt", json={"model_name": "m"}, timeout=30)
    assert begun.status_code == 202, begun.text
    job = begun.json()
    while job["state"] == "running":
        job = session.get(f"{at}/reencryptions/{job['reencryption_id']}", timeout=30).json()
    assert (job["state"], job["versions_done"]) == ("done", 1)
    assert session.get(f"{at}/models/m/versions/v1/files/a.bin", timeout=30).content == WEIGHTS
    assert session.post(f"{at}:reencrypt", json={"model_name": "none"}, timeout=30).status_code == 404


@pytest.mark.row("S0.7")
def test_a_manager_without_encryption_is_refused_with_400(stack: Stack) -> None:
    manager = manager_of(stack, enable_encryption=False)
    for verb in ("rotateKeys", "reencrypt"):
        answer = requests.post(
            f"{stack.url}/api/v1/managers/{manager}:{verb}",
            json={},
            headers={"X-API-Key": stack.admin_key},
            timeout=20,
        )
        assert (answer.status_code, answer.json()["reason"]) == (400, "MANAGER_NOT_ENCRYPTED")


def test_who_may_write_one_model_may_not_rotate_the_manager(stack: Stack) -> None:
    manager = manager_of(stack)
    with Client(stack.url, api_key=stack.admin_key) as admin:
        scope = f"managers/{manager}/models/mine"
        key = admin.keys.create(unique("writer"), permissions=["models.write", "models.read"], scopes=[scope]).key
    with Client(stack.url, api_key=key) as writer:
        for attempt in (writer.rotation.rotate, writer.rotation.reencrypt, writer.rotation.receipts):
            with pytest.raises(PermissionDenied):
                attempt(manager)


@pytest.mark.row("S0.3")
@pytest.mark.row("S0.4")
def test_a_protected_version_is_pushed_and_pulled_with_its_code(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)
    name = unique("protected")
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push(name, tmp_path / "weights.bin", version="v1", access_code=CODE)
        client.models.pull(name, tmp_path / "pulled.bin", access_code=CODE)
        assert (tmp_path / "pulled.bin").read_bytes() == WEIGHTS
        assert client.models.read(name, "weights.bin", length=10, access_code=CODE) == WEIGHTS[:10]
        assert client.models.verify(name, access_code=CODE).files_checked == 1
        assert client.models.verify(name).is_valid
        for wrong in (None, "wrong"):
            with pytest.raises(PermissionDenied) as caught:
                client.models.pull(name, tmp_path / "never.bin", access_code=wrong)
            assert caught.value.reason == "ACCESS_CODE_REFUSED"
        with pytest.raises(InvalidArgument):
            client.models.pull(name, tmp_path / "never.bin", access_code="zwei\nZeilen")
    assert not (tmp_path / "never.bin").exists()


@pytest.mark.row("S0.4")
def test_a_protected_file_is_put_and_got_over_rest(stack: Stack) -> None:
    at = f"{stack.url}/api/v1/managers/default/models/{unique('rest')}/versions/v1"
    credential = {"X-API-Key": stack.admin_key}
    code = {"X-Access-Code": CODE}
    assert requests.put(f"{at}/files/a.bin", data=WEIGHTS, headers=credential | code, timeout=30).status_code == 201
    assert requests.get(f"{at}/files/a.bin", headers=credential | code, timeout=30).content == WEIGHTS
    for headers in (credential, credential | {"X-Access-Code": "wrong"}):
        refused = requests.get(f"{at}/files/a.bin", headers=headers, timeout=30)
        assert (refused.status_code, refused.json()["reason"]) == (403, "ACCESS_CODE_REFUSED")
        assert CODE not in refused.text
    shown = requests.get(at, headers=credential, timeout=30).json()
    assert (shown["protected"], shown["files"]) == (True, [])


@pytest.mark.row("S0.10")
def test_codes_and_passwords_stand_in_no_log(stack: Stack) -> None:
    secret, name = "secret-that-no-log-may-have", unique("logged")
    with Client(stack.url, api_key=stack.admin_key) as client:
        manager = manager_of(stack)
        client.rotation.rotate(manager, password=secret)
        headers = {"X-API-Key": stack.admin_key, "X-Access-Code": secret}
        at = f"{stack.url}/api/v1/managers/default/models/{name}/versions/v1/files/a.bin"
        assert requests.put(at, data=b"x", headers=headers, timeout=30).status_code == 201
        assert requests.get(at, headers=headers | {"X-Access-Code": f"{secret}-wrong"}, timeout=30).status_code == 403
    for log in (stack.data_dir / "logs").glob("*.log"):
        assert secret not in log.read_text(errors="replace"), log


@pytest.mark.row("B2")
def test_the_commands(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)
    (tmp_path / "code").write_text(CODE + "\n")
    manager = manager_of(stack)
    code = ("--access-code-file", str(tmp_path / "code"))
    run(stack, "push", "scorer", str(tmp_path / "weights.bin"), "--version", "v1", "-m", manager)
    run(stack, "push", "scorer", str(tmp_path / "weights.bin"), "--version", "v2", "-m", manager, *code)
    assert "3 keys wrapped anew, version 1 to 2" in run(stack, "rotate", "-m", manager)
    (tmp_path / "password").write_text("a password\n")
    receipt = run(stack, "rotate", "-m", manager, "--password-file", str(tmp_path / "password"), "--json")
    assert json.loads(receipt)["using_password"]
    answer = run(stack, "rotate", "-m", manager, "--model", "scorer")
    assert "is done: 1 version" in answer
    assert "protected, so left as they are: scorer@v2" in answer
    run(stack, "pull", "scorer@v2", str(tmp_path / "two.bin"), "-m", manager, *code)
    assert (tmp_path / "two.bin").read_bytes() == WEIGHTS
    assert "access code" in run(stack, "pull", "scorer@v2", str(tmp_path / "no.bin"), "-m", manager, status=1)
    run(stack, "verify", "scorer@v2", "-m", manager, *code)
    run(stack, "verify", "scorer@v2", "-m", manager)
    run(stack, "rotate", "--reencrypt", "--password-file", str(tmp_path / "password"), status=2)
    run(stack, "push", "x", str(tmp_path / "weights.bin"), "--access-code-file", str(tmp_path / "missing"), status=2)
