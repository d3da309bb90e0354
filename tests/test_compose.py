"""docker-compose.yml: Docker Compose accepts it, it is hardened, and each container's exact command works as a process.

No container was run here: what these tests do not show is told in docs/deployment.md.
"""

import json
import re
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from strongroom import Client
from tests import postgresql
from tests.containers import COMPOSE, ROOT, Containers, resolved
from tests.stack import STRONGROOM, inherited

OURS = ("gateway", "auth", "models", "secrets")
ONCE = ("prepare", "bucket")
_PORTS = {"auth": "8091", "models": "8092", "secrets": "8093"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return resolved()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets, by the command that makes them."""
    folder = tmp_path_factory.mktemp("deployment") / "secrets"
    done = subprocess.run([STRONGROOM, "prepare", folder], env=inherited(), capture_output=True, text=True, check=True)
    assert "admin.key" in done.stdout
    return folder


def test_compose_itself_accepts_the_file(document: dict[str, Any]) -> None:
    assert set(document["services"]) == {*OURS, *ONCE, "authority", "postgres", "s3", "openbao"}


@pytest.mark.parametrize("mistake", ["read_onli: true", "healthcheck: {interval: soon}"])
def test_the_check_finds_mistakes(tmp_path: Path, mistake: str) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(f"services:\n  auth:\n    image: x\n    {mistake}\n")
    command = [COMPOSE, "-f", wrong, "config", "-q"]
    assert subprocess.run(command, env=inherited(), capture_output=True, check=False).returncode != 0


def test_no_container_can_do_more_than_it_needs(document: dict[str, Any]) -> None:
    for name, service in document["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert "/var/run/docker.sock" not in json.dumps(service.get("volumes", [])), name
        if name != "prepare":
            assert service["user"] == "10001:10001", name
            assert not service.get("cap_add"), name
        if name not in ONCE:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name
    for name in ("prepare", "authority"):
        assert document["services"][name]["network_mode"] == "none"


def test_only_the_gateway_is_reached_from_outside_and_by_default_from_this_host(document: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in document["services"].items() if service.get("ports")}
    assert set(ports) == {"gateway"}
    assert [port["host_ip"] for port in ports["gateway"]] == ["127.0.0.1"]
    assert document["networks"]["inside"]["internal"]


def test_what_is_not_ours_is_pinned_to_a_version(document: dict[str, Any]) -> None:
    for name, service in document["services"].items():
        image, _, tag = service["image"].partition(":")
        assert image == "strongroom" or re.match(r"\d+", tag), name


def test_no_variable_holds_a_secret(document: dict[str, Any], made: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for service in document["services"].values():
        for name in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|KEY|SECRET|TOKEN)S?$", name), name
    for file in made.iterdir():
        content = file.read_text().strip()
        assert content not in text, file.name


def test_every_secret_that_is_mounted_is_made_and_every_private_one_by_one_container(
    document: dict[str, Any], made: Path
) -> None:
    names = {Path(secret["file"]).name for secret in document["secrets"].values()}
    assert names == {file.name for file in made.iterdir()}
    users: dict[str, set[str]] = {}
    for name, service in document["services"].items():
        for secret in service.get("secrets", ()):
            users.setdefault(secret["source"], set()).add(name)
    for secret, found in users.items():
        shared = secret.endswith(".pub.pem") or secret in ("openbao.crt", "openbao_secret_id")
        assert shared or len(found) == 1, (secret, found)
    assert users["openbao_secret_id"] == {"openbao", "secrets"}


def test_secrets_are_their_owners_alone_and_made_once(made: Path) -> None:
    before = {file: file.read_bytes() for file in made.iterdir()}
    for file in before:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    (made / "postgres_roles.sql").unlink()
    (made / "openbao.crt").unlink()  # as a run leaves it that was cut off
    subprocess.run([STRONGROOM, "prepare", made], env=inherited(), capture_output=True, check=True)
    assert (made / "postgres_roles.sql").read_bytes() == before[made / "postgres_roles.sql"]
    rewritten = {"openbao.crt", "openbao_tls_key"}
    assert {file.name for file, content in before.items() if file.read_bytes() != content} == rewritten


def test_the_image_has_no_root_and_takes_digests_alone() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    last = dockerfile.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "--require-hashes -r requirements.lock" in dockerfile
    assert "COPY . " not in dockerfile
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines(), name


def wait(done: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def answers(url: str, authority: Path | None = None) -> bool:
    try:
        return requests.get(url, timeout=2, verify=str(authority) if authority else True).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.slow
@pytest.mark.row("S1.11")
def test_each_containers_exact_command_works_as_a_process(document: dict[str, Any], made: Path, tmp_path: Path) -> None:
    (made / "api_keys.txt").write_text("# of the pipeline\netl:read_only:a-static-key-of-the-pipeline\n")
    containers = Containers(document, tmp_path / "containers", made)
    containers.folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"weights" * 100_000)
    options = document["services"]["postgres"]["command"]
    assert options[0] == "postgres"
    with ExitStack() as stack:
        server = stack.enter_context(postgresql.running(*options[1:]))
        containers.taken("postgres", "5432", int(server.url.rpartition(":")[2].partition("/")[0]))
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE strongroom")
        with psycopg.connect(server.url.rpartition("/")[0] + "/strongroom", autocommit=True) as connection:
            connection.execute((made / "postgres_roles.sql").read_text())
        for name in ("s3", "openbao", "authority"):
            stack.enter_context(containers.running(name))
        wait(lambda: answers(containers.check("s3")[-1]), "s3 does not answer")
        for _ in range(2):  # a bucket that is there is no failure
            with containers.running("bucket") as bucket:
                assert bucket.wait(timeout=60) == 0, containers.log("bucket")
        wait(lambda: containers.healthy("openbao"), f"OpenBao is not healthy: {containers.log('openbao')}")
        wait(lambda: containers.healthy("authority"), f"there are no certificates: {containers.log('authority')}")
        started = {
            name: stack.enter_context(containers.running(name)) for name in ("secrets", "auth", "models", "gateway")
        }
        url = f"https://127.0.0.1:{containers.port('gateway', '8080')}"
        authority = containers.folder / "volumes" / "authority" / "ca.pem"

        def ready() -> bool:
            for name, process in started.items():
                assert process.poll() is None, containers.log(name)
            return answers(f"{url}/health", authority)

        wait(ready, "the parts do not get healthy")
        assert [name for name in OURS if not containers.healthy(name)] == []
        with Client(url, api_key=(made / "admin.key").read_text().strip(), ca_file=authority) as client:
            client.models.push("scorer", tmp_path / "weights.bin", version="v1")
            assert client.models.read("scorer", "weights.bin") == (tmp_path / "weights.bin").read_bytes()
            client.secrets.create("prod/db", {"password": "correct"})
            assert [one.name for one in client.root_key.show().generations] == ["openbao"]
            assert [(store.name, store.kind) for store in client.stores.show().stores] == [("s3", "s3")]
        with Client(url, api_key="a-static-key-of-the-pipeline", ca_file=authority) as client:
            assert client.models.read("scorer", "weights.bin", length=7) == b"weights"
        for name in ("auth", "models", "secrets"):
            folder = containers.folder / "volumes" / f"pki_{name}"
            assert {file.name for file in folder.iterdir()} == {"ca.pem", f"{name}.pem"}
            assert "can be read on the way" not in containers.log(name)
            with pytest.raises(requests.RequestException):  # whoever shows no certificate
                requests.get(f"https://127.0.0.1:{containers.port(name, _PORTS[name])}/", timeout=2, verify=False)  # noqa: S501
        started["models"].terminate()
        started["models"].wait(timeout=30)
        assert not containers.healthy("models")
        assert answers(f"http://127.0.0.1:{containers.port('auth', '9090')}/metrics")
        logs = "".join(file.read_text(errors="replace") for file in containers.folder.glob("*.log"))
    for file in made.iterdir():
        if not file.name.endswith(("pub.pem", ".crt", ".json", ".sql", "api_keys.txt")):
            assert file.read_text().strip() not in logs, file.name
