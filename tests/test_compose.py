"""docker-compose.yml: Docker Compose accepts it, it is hardened, and each container's exact command works as a process.

No container was run here: what these tests do not show is told in docs/deployment.md.
"""

import json
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from strongroom import Client
from strongroom.errors import PermissionDenied
from tests import postgresql
from tests.containers import COMPOSE, ROOT, Containers, resolved
from tests.stack import STRONGROOM, inherited

OURS = ("gateway", "auth", "models", "secrets")
ONCE = ("prepare", "bucket")
STATIC_KEY = "a-static-key-of-the-pipeline"
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


@dataclass(frozen=True)
class Installation:
    """The containers as processes, all of them healthy."""

    containers: Containers
    url: str
    authority: Path
    started: dict[str, subprocess.Popen[bytes]]

    def client(self, key: str) -> Client:
        return Client(self.url, api_key=key, ca_file=self.authority)


@contextmanager
def running(document: dict[str, Any], made: Path, folder: Path) -> Iterator[Installation]:
    """Started in the order of docker-compose.yml, with a static key in the file for such."""
    (made / "api_keys.txt").write_text(f"# of the pipeline\netl:read_only:{STATIC_KEY}\n")
    containers = Containers(document, folder, made)
    with ExitStack() as stack:
        stack.enter_context(_database(containers))
        before = {name: stack.enter_context(containers.running(name)) for name in ("s3", "openbao", "authority")}
        wait(lambda: answers(containers.check("s3")[-1]), "s3 does not answer")
        with containers.running("bucket") as bucket:
            assert bucket.wait(timeout=60) == 0, containers.log("bucket")
        for name in ("openbao", "authority"):
            wait(partial(_runs_well, containers, name, before[name]), f"{name} does not get healthy")
        order = ("secrets", "auth", "models", "gateway")
        started = {name: stack.enter_context(containers.running(name)) for name in order}
        url = f"https://127.0.0.1:{containers.port('gateway', '8080')}"
        authority = containers.folder / "volumes" / "authority" / "ca.pem"

        def ready() -> bool:
            for name, process in started.items():
                assert process.poll() is None, containers.log(name)
            return answers(f"{url}/health", authority)

        wait(ready, "the parts do not get healthy")
        yield Installation(containers, url, authority, started)


def _runs_well(containers: Containers, name: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, containers.log(name)
    return containers.healthy(name)


@contextmanager
def _database(containers: Containers) -> Iterator[None]:
    """PostgreSQL as its image starts it: with the options of the command, and the roles of the file."""
    program, *options = containers.document["services"]["postgres"]["command"]
    assert program == "postgres"
    with postgresql.running(*options) as server:
        containers.taken("postgres", "5432", int(server.url.rpartition(":")[2].partition("/")[0]))
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE strongroom")
        with psycopg.connect(server.url.rpartition("/")[0] + "/strongroom", autocommit=True) as connection:
            connection.execute((containers.secrets / "postgres_roles.sql").read_text())
        yield


@pytest.mark.slow
@pytest.mark.row("S1.11")
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_each_containers_exact_command_works_as_a_process(document: dict[str, Any], made: Path, tmp_path: Path) -> None:
    """One test, as starting all of it is what takes long."""
    with running(document, made, tmp_path) as installation:
        _weights_go_to_the_bucket_and_come_back(installation)
        _the_root_key_is_openbaos(installation)
        _static_keys_come_from_a_mounted_file(installation)
        _each_part_has_a_certificate_of_its_own_and_takes_nobody_without(installation)
        _a_role_of_postgresql_sees_no_schema_but_its_own(installation)
        _metrics_are_where_prometheus_looks(installation)
        _the_bucket_is_made_once(installation)
        _health_checks_say_what_is_true(installation)
        _no_log_has_a_secret(installation)


def _weights_go_to_the_bucket_and_come_back(installation: Installation) -> None:
    weights = installation.containers.folder / "weights.bin"
    weights.write_bytes(b"weights" * 100_000)
    with installation.client((installation.containers.secrets / "admin.key").read_text().strip()) as client:
        client.models.push("scorer", weights, version="v1")
        assert client.models.read("scorer", "weights.bin") == weights.read_bytes()
        assert [(store.name, store.kind) for store in client.stores.show().stores] == [("s3", "s3")]


def _the_root_key_is_openbaos(installation: Installation) -> None:
    with installation.client((installation.containers.secrets / "admin.key").read_text().strip()) as client:
        client.secrets.create("prod/db", {"password": "correct"})
        assert [one.name for one in client.root_key.show().generations] == ["openbao"]


def _static_keys_come_from_a_mounted_file(installation: Installation) -> None:
    with installation.client(STATIC_KEY) as client:
        assert client.tokens.caller().name == "etl"
        with pytest.raises(PermissionDenied):
            client.secrets.create("prod/other", {"password": "x"})


def _each_part_has_a_certificate_of_its_own_and_takes_nobody_without(installation: Installation) -> None:
    containers = installation.containers
    for name, port in _PORTS.items():
        folder = containers.folder / "volumes" / f"pki_{name}"
        assert {file.name for file in folder.iterdir()} == {"ca.pem", f"{name}.pem"}
        assert "can be read on the way" not in containers.log(name)
        with pytest.raises(requests.RequestException):
            requests.get(f"https://127.0.0.1:{containers.port(name, port)}/", timeout=2, verify=False)  # noqa: S501


def _a_role_of_postgresql_sees_no_schema_but_its_own(installation: Installation) -> None:
    password = (installation.containers.secrets / "models.pgpass").read_text().strip().rpartition(":")[2]
    port = installation.containers.ports["postgres", "5432"]
    where = {"host": "127.0.0.1", "port": port, "dbname": "strongroom", "user": "strongroom_models"}
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(**where, password=password) as connection, refused:
        connection.execute("SELECT * FROM secrets.keks")


def _metrics_are_where_prometheus_looks(installation: Installation) -> None:
    for name in OURS:
        assert answers(f"http://127.0.0.1:{installation.containers.port(name, '9090')}/metrics"), name


def _the_bucket_is_made_once(installation: Installation) -> None:
    with installation.containers.running("bucket") as bucket:
        assert bucket.wait(timeout=60) == 0, installation.containers.log("bucket")


def _health_checks_say_what_is_true(installation: Installation) -> None:
    containers = installation.containers
    assert [name for name in OURS if not containers.healthy(name)] == []
    installation.started["models"].terminate()
    assert installation.started["models"].wait(timeout=30) == 0
    assert not containers.healthy("models")


def _no_log_has_a_secret(installation: Installation) -> None:
    logs = "".join(file.read_text(errors="replace") for file in installation.containers.folder.glob("*.log"))
    assert STATIC_KEY not in logs
    for file in installation.containers.secrets.iterdir():
        if not file.name.endswith((".pub.pem", ".crt", ".json", ".sql", "api_keys.txt")):
            assert file.read_text().strip() not in logs, file.name
