"""Rotation as a user has it: through the gateway over REST and gRPC, and on the command line."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from strongroom import Client
from strongroom.errors import NotFound, PermissionDenied, StrongroomError
from tests.database_roles import Roles
from tests.postgresql import Server
from tests.stack import Stack
from tests.terminal import Terminal

pytestmark = pytest.mark.row("S4.3")

PLANTED = "correct-horse-rotating-4711"


def unique(name: str) -> str:
    return f"rotation/{name}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, api_key=stack.admin_key) as made:
        yield made


@pytest.fixture
def rest(stack: Stack) -> requests.Session:
    session = requests.Session()
    session.headers["X-API-Key"] = stack.admin_key
    return session


def limited(stack: Stack, *permissions: str, scope: str = "secrets/rotation/**") -> Client:
    with Client(stack.url, api_key=stack.admin_key) as administrator:
        made = administrator.keys.create("limited", permissions=permissions, scopes=[scope])
    return Client(stack.url, api_key=made.key)


def test_a_secret_rotates_over_grpc(stack: Stack, client: Client) -> None:
    name = unique("grpc")
    client.secrets.put(name, {"password": PLANTED, "user": "ada"})
    planned = client.secret_rotation.set(name, "random", {"length": 40}, schedule="0 3 * * SUN", grace_seconds=3600)
    assert (planned.state, planned.schedule, planned.time_zone) == ("idle", "0 3 * * SUN", "UTC")
    assert planned.next_run_at.seconds > time.time()
    rotation = client.secret_rotation.finished(client.secret_rotation.rotate(name))
    assert (rotation.state, rotation.last.state, rotation.last.trigger) == ("idle", "done", "request")
    assert (rotation.last.from_version, rotation.last.to_version) == (1, 2)
    value = client.secrets.get(name).data
    assert len(value["password"]) == 40
    assert value["user"] == "ada"
    assert client.secrets.get(name, 1).data["password"] == PLANTED
    assert [run.state for run in client.secret_rotation.history(name)] == ["done"]
    assert name in [item.name for item in client.secret_rotation.list()]
    assert PLANTED not in str(rotation)
    client.secret_rotation.remove(name)
    with pytest.raises(NotFound) as caught:
        client.secret_rotation.get(name)
    assert caught.value.reason == "ROTATION_NOT_CONFIGURED"


def test_a_secret_rotates_over_rest(stack: Stack, rest: requests.Session) -> None:
    name = unique("rest")
    at = f"{stack.url}/api/v1/secrets/{name}"
    created = rest.post(f"{stack.url}/api/v1/secrets", json={"name": name, "data": {"token": PLANTED}}, timeout=20)
    assert created.status_code == 201, created.text
    body = {
        "rotator": "random",
        "options": {"fields": ["token"]},
        "schedule": "30 2 * * *",
        "time_zone": "Europe/Vienna",
    }
    planned = rest.put(f"{at}:rotation", json=body, timeout=20)
    assert planned.status_code == 200, planned.text
    assert planned.json()["grace_seconds"] == 86400
    asked = rest.post(f"{at}:rotate", json={}, timeout=20)
    assert asked.status_code == 202, asked.text
    while (status := rest.get(f"{at}:rotation", timeout=20).json())["state"] in ("requested", "running"):
        time.sleep(0.05)
    assert (status["state"], status["last"]["state"], status["last"]["to_version"]) == ("idle", "done", 2)
    assert rest.get(at, timeout=20).json()["data"]["token"] != PLANTED
    [run] = rest.get(f"{at}:rotations", timeout=20).json()["runs"]
    assert run["requested_by"].startswith(("key:", "user:"))
    listed = rest.get(f"{stack.url}/api/v1/secret-rotations?page_size=1000", timeout=20).json()["rotations"]
    assert name in [item["name"] for item in listed]
    assert rest.delete(f"{at}:rotation", timeout=20).status_code == 200
    gone = rest.get(f"{at}:rotation", timeout=20)
    assert (gone.status_code, gone.json()["reason"]) == (404, "ROTATION_NOT_CONFIGURED")


def test_a_database_password_rotates_on_the_running_server(client: Client, postgresql_server: Server) -> None:
    roles = Roles.make(postgresql_server)
    name, admin = unique("pg"), unique("pg-admin")
    client.secrets.put(name, roles.value)
    client.secrets.put(admin, roles.admin)
    client.secret_rotation.set(name, "postgresql", roles.options(admin_secret=admin))
    for turn in (1, 0):
        rotation = client.secret_rotation.finished(client.secret_rotation.rotate(name))
        assert (rotation.state, rotation.error, rotation.last.error) == ("idle", "", "")
        value = dict(client.secrets.get(name).data)
        assert value["username"] == roles.names[turn]
        assert roles.logs_in(value)


def test_a_strongroom_key_rotates_itself_through_the_gateway(stack: Stack, client: Client) -> None:
    name, admin = unique("key"), unique("key-admin")
    made = client.keys.create("rotating", permission_set="read_only")
    client.secrets.put(name, {"key": made.key})
    client.secrets.put(admin, {"key": stack.admin_key})
    client.secret_rotation.set(name, "strongroom-key", {"key_id": made.id, "admin_secret": admin})
    rotation = client.secret_rotation.finished(client.secret_rotation.rotate(name))
    assert (rotation.state, rotation.last.error) == ("idle", "")
    # Who asks about the administrator's key is told of that, too.
    [event] = client.audit.list(resource=f"secrets/{admin}", kind="secrets.rotation_read")
    assert (event.principal, event.request_id) == (rotation.last.requested_by, rotation.last.id)
    with Client(stack.url, api_key=client.secrets.get(name).data["key"]) as holder:
        assert holder.tokens.caller().principal == f"key:{made.id}"


def test_who_may_what(stack: Stack, client: Client) -> None:
    name, other = unique("mine"), unique("theirs")
    client.secrets.put(name, {"key": PLANTED})
    client.secrets.put(other, {"key": PLANTED})
    options = {"key_id": "01J", "admin_secret": other}
    # A rotation hands the value to a server: who may only write a secret must not learn it so.
    with limited(stack, "secrets.write", "secrets.list", "secrets.destroy") as writer:
        with pytest.raises(PermissionDenied, match=r"secrets\.read"):
            writer.secret_rotation.set(name, "random")
        with pytest.raises(PermissionDenied):
            writer.secrets.get(name)
    keeper = limited(stack, "secrets.write", "secrets.read", "secrets.list")
    with keeper, pytest.raises(PermissionDenied, match=r"secrets\.destroy"):
        keeper.secret_rotation.set(name, "random")
    with limited(stack, "secrets.*", scope=f"secrets/{name}") as owner:
        with pytest.raises(PermissionDenied, match=f"secrets/{other}"):
            owner.secret_rotation.set(name, "strongroom-key", options)
        owner.secret_rotation.set(name, "random", {"fields": ["key"]})
        assert [item.name for item in owner.secret_rotation.list()] == [name]
    with limited(stack, "secrets.list") as reader:
        assert reader.secret_rotation.get(name).rotator == "random"
        for call in (reader.secret_rotation.rotate, reader.secret_rotation.remove):
            with pytest.raises(PermissionDenied):
                call(name)
    with limited(stack, "secrets.list", scope="secrets/elsewhere/**") as stranger:
        assert list(stranger.secret_rotation.list()) == []
        with pytest.raises(PermissionDenied):
            stranger.secret_rotation.get(name)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rotator": "nosuch"}, "ROTATOR_UNKNOWN"),
        ({"rotator": "random", "options": {"length": 3}}, "ROTATION_OPTIONS_INVALID"),
        ({"rotator": "random", "options": {"password": PLANTED}}, "ROTATION_OPTIONS_INVALID"),
        ({"rotator": "random", "schedule": "0 0 31 2 *"}, "SCHEDULE_INVALID"),
        ({"rotator": "random", "schedule": "0 0 * * *", "time_zone": "Mars/Olympus"}, "SCHEDULE_INVALID"),
        (
            {"rotator": "webhook", "options": {"url": "https://169.254.169.254/", "signing_secret": "a"}},
            "ROTATION_TARGET_FORBIDDEN",
        ),
    ],
)
def test_what_is_refused(client: Client, fields: dict[str, Any], reason: str) -> None:
    name = unique("refused")
    client.secrets.put(name, {"password": "x"})
    with pytest.raises(StrongroomError) as caught:
        client.secret_rotation.set(name, **fields)
    assert caught.value.reason == reason
    assert PLANTED not in str(caught.value)


def test_nothing_of_a_value_is_logged_and_the_rotation_stands_in_the_audit_log(
    stack: Stack, client: Client, rest: requests.Session
) -> None:
    name = unique("audit")
    client.secrets.put(name, {"password": PLANTED})
    client.secret_rotation.set(name, "random")
    run = client.secret_rotation.finished(client.secret_rotation.rotate(name)).last
    new = client.secrets.get(name).data["password"]
    [event] = client.audit.list(resource=f"secrets/{name}", kind="secrets.rotation")
    assert (event.outcome, event.request_id, event.principal) == ("allowed", run.id, run.requested_by)
    for path in stack.data_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert new.encode() not in content, path
            assert PLANTED.encode() not in content, path


def test_the_command_line(stack: Stack) -> None:
    strongroom, name = Terminal.of(stack), unique("cli")
    strongroom("secrets", "put", name, "password=-", "user=ada", stdin=PLANTED)
    refused = strongroom("secrets", "rotate", name, "--now")
    assert (refused.status, refused.err) == (
        1, f"strongroom: Secret '{name}' does not rotate. Set up its rotation first.\n",
    )  # fmt: skip
    planned = strongroom(
        "secrets", "rotation", "set", name, "-r", "random", "-o", "length=20", "--schedule", "0 3 1 1 *"
    )
    assert planned.out.startswith(f"{name} rotates by random, next at ")
    assert planned.out.endswith("-01-01 03:00 UTC\n")
    zoned = ("-r", "random", "-o", "length=20", "--schedule", "0 3 1 1 *", "--time-zone", "Europe/Vienna")
    assert strongroom("secrets", "rotation", "set", name, *zoned).out.endswith("-01-01 03:00 Europe/Vienna\n")
    waits = strongroom("secrets", "rotate", name)
    assert waits.status == 1
    assert waits.err.endswith("; --now does not wait for that\n")
    assert strongroom("secrets", "rotate", name, "--now").out == f"rotated {name}, version 1 to 2\n"
    assert len(strongroom("secrets", "get", name, "--field", "password").out) == 21
    shown = strongroom("secrets", "rotation", "show", name).out.splitlines()
    assert shown[1] == "state: idle"
    assert shown[2].split("\t")[1:4] == ["done", "request", "1 to 2"]
    assert strongroom("secrets", "rotation", "show", name, "--json").json["runs"][0]["to_version"] == 2
    assert name in strongroom("secrets", "rotation", "list").out
    fails = strongroom("secrets", "rotation", "set", name, "-r", "webhook", "-o", f"hush={PLANTED}")
    assert fails.status == 1
    assert PLANTED not in fails.err
    assert strongroom("secrets", "rotation", "set", name, "-r", "random", "-o", PLANTED).err.count(PLANTED) == 0
    assert strongroom("secrets", "rotation", "rm", name).out == f"{name} does not rotate any more\n"


def test_a_rotation_that_fails_is_told_by_the_command(stack: Stack) -> None:
    strongroom, name, key = Terminal.of(stack), unique("cli-fails"), unique("cli-key")
    strongroom("secrets", "put", name, "password=x")
    strongroom("secrets", "put", key, "key=x")
    options = ("-o", "url=http://127.0.0.1:1/", "-o", f"signing_secret={key}")
    assert strongroom("secrets", "rotation", "set", name, "-r", "webhook", *options).status == 0
    failed = strongroom("secrets", "rotate", name, "--now", "--no-wait")
    assert failed.out == f"{name}: requested\n"
    with Client(stack.url, api_key=stack.admin_key) as client:
        while client.secret_rotation.get(name).state != "rolling_back":
            time.sleep(0.05)
    shown = strongroom("secrets", "rotation", "show", name).out
    assert "The webhook at 127.0.0.1:1 does not answer" in shown
    refused = strongroom("secrets", "rotation", "rm", name)
    assert "is being rotated" in refused.err
    assert strongroom("secrets", "rotation", "rm", name, "--abandon").status == 0
    assert strongroom("secrets", "get", name, "--field", "password").out == "x\n"


def test_paths_that_look_alike_are_not_mixed_up(stack: Stack, rest: requests.Session) -> None:
    """A verb behind a colon belongs to the method, never to the name of a secret."""
    name = unique("colon")
    at = f"{stack.url}/api/v1/secrets/{name}"
    answer = rest.put(f"{at}:rotation", json={"data": {"a": "b"}}, timeout=20)
    assert answer.status_code == 400, answer.text
    assert rest.get(at, timeout=20).status_code == 404
    assert rest.put(f"{at}:nonsense", json={"data": {"a": "b"}, "allow_missing": True}, timeout=20).status_code >= 400
    assert json.loads(rest.get(f"{at}:rotation", timeout=20).text)["status"] == 404
