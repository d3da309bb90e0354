"""`strongroom doctor`: it finds what is broken, says what to do, shows no secret and changes nothing."""

import json
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom import Client
from strongroom.auth.v1 import api_keys_pb2
from strongroom.doctor import here, rules
from strongroom.doctor.findings import Finding, Level
from strongroom.errors import Unavailable
from strongroom.local.pki import Pki
from strongroom.models.v1 import stores_pb2
from strongroom.secrets.v1 import providers_pb2, root_key_pb2
from tests.stack import STRONGROOM, Stack, free_port, inherited


def doctor(folder: Path, url: str, key: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = inherited() | {"STRONGROOM_URL": url, "STRONGROOM_API_KEY": key, "HOME": str(folder)}
    command = [STRONGROOM, "doctor", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def found(findings: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_an_installation_that_works_has_nothing_to_mend(stack: Stack, tmp_path: Path) -> None:
    done = doctor(tmp_path, stack.url, stack.admin_key, "--data-dir", str(stack.data_dir), "--json")
    report = json.loads(done.stdout)
    by_subject = {one["subject"]: one for one in report["findings"]}
    # Other tests break stores and providers of installations of their own, and never this one's parts.
    for subject in ("parts", "version", "clocks", "credential", "store local", "root key", "data directory", "models"):
        assert by_subject[subject]["level"] == "ok", by_subject[subject]
    assert report["works"] == (done.returncode == 0)
    assert stack.admin_key not in done.stdout + done.stderr


def test_a_caller_without_the_right_is_told_what_was_not_looked_at(stack: Stack, tmp_path: Path) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        reader = client.keys.create("doctor-reader", permission_set="read_only").key
    done = doctor(tmp_path, stack.url, reader)
    assert "-     root key: " in done.stdout
    assert "FAIL" not in done.stdout
    assert done.returncode == 0, done.stderr


def test_a_wrong_key_is_said_to_be_wrong_and_not_shown(stack: Stack, tmp_path: Path) -> None:
    done = doctor(tmp_path, stack.url, "sr_nobodyskeyatall")
    assert "FAIL  credential: " in done.stdout
    assert "strongroom login" in done.stdout
    assert "nobodyskey" not in done.stdout + done.stderr
    assert done.returncode == 1


def test_an_address_where_nothing_is_is_the_one_finding(tmp_path: Path) -> None:
    done = doctor(tmp_path, f"http://127.0.0.1:{free_port()}", "a-key-of-somebody", "--json")
    report = json.loads(done.stdout)
    assert [one["subject"] for one in report["findings"]] == ["gateway"]
    assert "strongroom up" in report["findings"][0]["advice"]
    assert (report["works"], done.returncode) == (False, 1)


@pytest.fixture
def data_dir(stack: Stack, tmp_path: Path) -> Path:
    """A copy of what a running installation has, without its data."""
    copy = tmp_path / "data"
    copy.mkdir(mode=0o700)
    for name in ("run", "keys", "db", "logs"):
        (copy / name).mkdir(mode=0o700)
    for name in ("root.key", "admin.key", "run/state.json"):
        shutil.copy2(stack.data_dir / name, copy / name)
    (copy / "db" / "strongroom-auth.db").touch(mode=0o600)
    return copy


def test_a_key_that_others_may_read_is_a_failure(data_dir: Path) -> None:
    assert found(here.look(data_dir))["data directory"].level is Level.OK
    (data_dir / "root.key").chmod(0o640)
    finding = found(here.look(data_dir))["data directory"]
    assert finding.level is Level.FAILURE
    assert str(data_dir / "root.key") in finding.message
    assert "chmod" in finding.advice
    assert "rotate" in finding.advice


def test_a_missing_root_key_is_a_failure_unless_it_is_elsewhere(data_dir: Path) -> None:
    (data_dir / "root.key").unlink()
    assert "backup" in found(here.look(data_dir))["root key"].advice
    (data_dir / "kms.yaml").touch(mode=0o600)
    assert "root key" not in found(here.look(data_dir))


def test_certificates_that_expire_or_are_damaged_are_a_failure(data_dir: Path) -> None:
    assert "certificates" not in found(here.look(data_dir))
    pki = Pki(data_dir / "pki")
    pki.init(["localhost"])
    assert found(here.look(data_dir))["certificates"].level is Level.OK
    Pki(data_dir / "pki", clock=lambda: datetime.now(UTC) - timedelta(days=40)).rotate()
    finding = found(here.look(data_dir))["certificates"]
    assert finding.level is Level.FAILURE
    assert "models is expired" in finding.message
    assert "pki rotate" in finding.advice
    (data_dir / "pki" / "ca.pem").write_text("damaged")
    assert found(here.look(data_dir))["certificates"].level is Level.FAILURE


def test_a_dead_part_is_named_with_the_last_trouble_of_its_log(data_dir: Path) -> None:
    assert found(here.look(data_dir))["models"].level is Level.OK
    state = json.loads((data_dir / "run" / "state.json").read_text())
    state["started"]["models"] += 1  # another process has its number now
    (data_dir / "run" / "state.json").write_text(json.dumps(state))
    lines = [
        {"level": "warning", "event": "not ready", "error": "OperationalError: no such host"},
        {"event": "request"},
    ]
    (data_dir / "logs" / "models.log").write_text("Traceback\n" + "".join(json.dumps(one) + "\n" for one in lines))
    finding = found(here.look(data_dir))["models"]
    assert finding.level is Level.FAILURE
    assert "no such host" in finding.message


def test_an_address_that_others_hear_is_a_warning(data_dir: Path) -> None:
    assert "network" not in found(here.look(data_dir))
    state = json.loads((data_dir / "run" / "state.json").read_text())
    (data_dir / "run" / "state.json").write_text(json.dumps(state | {"overheard": "0.0.0.0"}))
    finding = found(here.look(data_dir))["network"]
    assert finding.level is Level.WARNING
    assert "0.0.0.0 is served without TLS" in finding.message
    assert "strongroom pki init" in finding.advice


@pytest.mark.parametrize("state", [None, "{", "[]", '{"url": 1}'])
def test_a_folder_on_which_nothing_runs_is_a_warning(data_dir: Path, state: str | None) -> None:
    file = data_dir / "run" / "state.json"
    file.unlink() if state is None else file.write_text(state)
    finding = found(here.look(data_dir))["processes"]
    assert finding.level is Level.WARNING
    assert "strongroom up" in finding.advice


def test_sockets_are_no_files_that_others_may_read(data_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data_dir / "run" / "admin.sock"))
        assert found(here.look(data_dir))["data directory"].level is Level.OK


@pytest.mark.parametrize(
    ("ahead", "took", "level"), [(0, 0.1, "ok"), (20, 30, "ok"), (40, 30, "warning"), (-6, 0.1, "warning")]
)
def test_clocks_that_differ_by_more_than_the_answer_took_are_a_warning(ahead: float, took: float, level: str) -> None:
    assert rules.clocks(ahead, took).level == level


@pytest.mark.parametrize(
    ("fields", "level", "words"),
    [
        ({}, "ok", ""),
        ({"healthy": False, "error": "NoSuchBucket"}, "failure", "NoSuchBucket"),
        ({"lag_seconds": 90.0, "pending_objects": 3}, "warning", "3 objects"),
    ],
)
def test_a_store_is_judged_by_what_it_lacks(fields: dict[str, Any], level: str, words: str) -> None:
    store = stores_pb2.Store(**{"name": "bucket", "kind": "s3", "role": "replica", "healthy": True} | fields)
    (finding,) = rules.stores(stores_pb2.ListStoresResponse(stores=[store]))
    assert (finding.subject, finding.level) == ("store bucket", level)
    assert words in finding.message
    assert bool(finding.advice) == (level != "ok")


def test_an_index_that_does_not_fit_the_weights_is_a_failure() -> None:
    (finding,) = rules.stores(stores_pb2.ListStoresResponse(index_problem="The index is older than the weights."))
    assert (finding.level, "rebuild" in finding.advice) == (Level.FAILURE, True)


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, "ok"),
        ({"healthy": False, "error": "AccessDenied"}, "failure"),
        ({"lag_seconds": 90.0, "pending_secrets": 3}, "warning"),
        ({"drifted_secrets": 2}, "warning"),
    ],
)
def test_a_provider_is_judged_by_what_it_has_otherwise(fields: dict[str, Any], level: str) -> None:
    provider = providers_pb2.Provider(**{"name": "aws", "kind": "aws", "role": "replica", "healthy": True} | fields)
    (finding,) = rules.providers([provider])
    assert finding.level == level


def test_a_part_that_is_down_is_named_with_its_log() -> None:
    error = Unavailable("models is not healthy.", reason="PART_UNHEALTHY", metadata={"part": "models"})
    finding = rules.unavailable("http://there", error)
    assert (finding.level, finding.subject) == (Level.FAILURE, "parts")
    assert "logs/models.log" in finding.advice


def test_another_version_an_unfinished_move_and_old_keys_are_warnings() -> None:
    assert rules.versions("1", "2").level is Level.WARNING
    generations = [
        root_key_pb2.RootKeyGeneration(generation=2, name="vault", kind="transit", place="vault", keks=2),
        root_key_pb2.RootKeyGeneration(generation=1, name="file", kind="file", place="root.key", keks=4),
    ]
    finding = rules.root_key(root_key_pb2.GetRootKeyResponse(generations=generations))
    assert (finding.level, finding.advice) == (Level.WARNING, "strongroom admin root-key move vault")
    assert "4 keys" in finding.message
    old = [api_keys_pb2.KeyAge(name=f"etl{n}", key_prefix="abcdefgh", age_days=400, status="overdue") for n in range(7)]
    finding = rules.keys([*old, api_keys_pb2.KeyAge(name="new", status="ok")])
    assert finding.level is Level.WARNING
    assert "etl4 (abcdefgh…, 400 days) and 2 more" in finding.message
