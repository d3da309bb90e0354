"""Rotators for API keys, AWS access keys and webhooks, against what they are for."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest

from services.secrets.rotation.leases import LEASE
from services.secrets.rotation.options import OptionsInvalid
from services.secrets.rotation.rotators import webhook
from services.secrets.rotation.runs import State
from services.secrets.rotation.targets import TargetForbidden
from services.secrets.vault import Vault
from strongroom import Client
from strongroom.errors import Unauthenticated
from tests import aws
from tests.rotating import Rotating
from tests.stack import Stack

pytestmark = pytest.mark.row("S4.3")


@pytest.fixture
def rotating(tmp_path: Path) -> Iterator[Rotating]:
    made = Rotating.open(f"sqlite:///{tmp_path}/strongroom.db")
    yield made
    made.database.close()


class Cut(BaseException):
    """The process ends here."""


def cut_off_before_the_value_is_kept(rotating: Rotating, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the target answered is lost."""

    def lost(*_: Any, **__: Any) -> None:
        raise Cut

    rotating.policies.request(name, "key:asker")
    with monkeypatch.context() as patch:
        patch.setattr(Vault, "stage", lost)
        with pytest.raises(Cut):
            rotating.later()


# API keys of this Strongroom.


def works(stack: Stack, key: str) -> bool:
    with Client(stack.url, api_key=key) as client:
        try:
            client.tokens.caller()
        except Unauthenticated:
            return False
    return True


@pytest.fixture
def api_key(rotating: Rotating, stack: Stack) -> str:
    """The id of a key whose secret rotates."""
    rotating.__init__(rotating.database, url=stack.url)  # type: ignore[misc]
    with Client(stack.url, api_key=stack.admin_key) as client:
        made = client.keys.create("rotating", permission_set="read_only")
    rotating.vault.create("ci", {"key": made.key}, "key:owner")
    rotating.vault.create("ci-admin", {"key": stack.admin_key}, "key:owner")
    rotating.plan("ci", "strongroom-key", {"key_id": made.id, "admin_secret": "ci-admin"}, grace=60)
    return made.id


def test_an_api_key_gets_a_new_secret_and_the_one_before_works_in_its_grace(
    rotating: Rotating, stack: Stack, api_key: str
) -> None:
    before = rotating.value("ci")["key"]
    status = rotating.rotate("ci")
    assert (status.latest.state, status.latest.error) == (State.DONE, "")
    after = rotating.value("ci")["key"]
    assert after != before
    assert works(stack, before)
    assert works(stack, after)
    with Client(stack.url, api_key=after) as client:
        assert client.tokens.caller().principal == f"key:{api_key}"


def test_an_api_key_whose_new_secret_was_lost_is_rotated_again(
    rotating: Rotating, stack: Stack, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off_before_the_value_is_kept(rotating, "ci", monkeypatch)
    assert works(stack, rotating.value("ci")["key"])
    rotating.take_over()
    assert rotating.policies.get("ci").latest.state is State.DONE
    assert works(stack, rotating.value("ci")["key"])


def test_an_api_key_that_may_not_be_rotated_stays(rotating: Rotating, stack: Stack, api_key: str) -> None:
    before = rotating.value("ci")
    rotating.vault.update("ci-admin", {"key": "sr_" + "a" * 40}, "key:owner")
    status = rotating.rotate("ci")
    assert (status.latest.state, status.latest.reason) == (State.ROLLED_BACK, "ROTATION_TARGET_REFUSES")
    assert rotating.value("ci") == before
    assert works(stack, before["key"])


# Access keys of AWS.


@dataclass(frozen=True)
class Aws:
    """A moto that checks signatures, and a user whose key rotates."""

    url: str
    admin: dict[str, str]
    user: str
    value: dict[str, str]

    def key_ids(self) -> set[str]:
        iam = boto3.client("iam", endpoint_url=self.url, region_name="us-east-1", **as_boto(self.admin))
        return {key["AccessKeyId"] for key in iam.list_access_keys(UserName=self.user)["AccessKeyMetadata"]}

    def works(self, value: dict[str, Any]) -> bool:
        sts = boto3.client("sts", endpoint_url=self.url, region_name="us-east-1", **as_boto(value))
        try:
            sts.get_caller_identity()
        except botocore.exceptions.ClientError:
            return False
        return True


def as_boto(value: dict[str, Any]) -> dict[str, str]:
    return {"aws_access_key_id": value["access_key_id"], "aws_secret_access_key": value["secret_access_key"]}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    with aws.moto() as url:
        iam = aws.client("iam", url)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        values = {}
        for user in ("administrator", "application"):
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=json.dumps(document))
            key = iam.create_access_key(UserName=user)["AccessKey"]
            values[user] = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
        aws.verify_signatures(url)
        yield Aws(url, values["administrator"], "application", values["application"])


@pytest.fixture
def in_cloud(rotating: Rotating, cloud: Aws) -> Iterator[Rotating]:
    rotating.__init__(rotating.database, aws_endpoint=cloud.url)  # type: ignore[misc]
    iam = boto3.client("iam", endpoint_url=cloud.url, region_name="us-east-1", **as_boto(cloud.admin))
    for left in cloud.key_ids():
        iam.delete_access_key(UserName=cloud.user, AccessKeyId=left)
    key = iam.create_access_key(UserName=cloud.user)["AccessKey"]
    value = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"], "region": "eu"}
    rotating.vault.create("aws", value, "key:owner")
    rotating.vault.create("aws-admin", cloud.admin, "key:owner")
    return rotating


@pytest.mark.parametrize("options", [{"admin_secret": "aws-admin"}, {}], ids=["administrator", "itself"])
def test_an_aws_access_key_rotates_and_the_one_before_is_deleted_after_its_grace(
    in_cloud: Rotating, cloud: Aws, options: dict[str, str]
) -> None:
    in_cloud.plan("aws", "aws-access-key", {"user": cloud.user, **options}, grace=60)
    before = in_cloud.value("aws")
    status = in_cloud.rotate("aws")
    assert (status.latest.state, status.latest.error) == (State.DONE, "")
    after = in_cloud.value("aws")
    assert after["region"] == "eu"
    assert cloud.key_ids() == {before["access_key_id"], after["access_key_id"]}
    assert cloud.works(before)
    assert cloud.works(after)
    in_cloud.later(minutes=2)
    assert cloud.key_ids() == {after["access_key_id"]}
    assert not cloud.works(before)


def test_a_rotation_in_the_grace_of_the_last_makes_room_first(in_cloud: Rotating, cloud: Aws) -> None:
    in_cloud.plan("aws", "aws-access-key", {"user": cloud.user, "admin_secret": "aws-admin"})
    for _ in range(3):
        assert in_cloud.rotate("aws").latest.state is State.DONE
    assert cloud.works(in_cloud.value("aws"))
    assert len(cloud.key_ids()) == 2


def test_a_key_whose_secret_was_lost_is_deleted_and_no_other(
    in_cloud: Rotating, cloud: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_cloud.plan("aws", "aws-access-key", {"user": cloud.user, "admin_secret": "aws-admin"})
    before = in_cloud.value("aws")
    cut_off_before_the_value_is_kept(in_cloud, "aws", monkeypatch)
    [lost] = cloud.key_ids() - {before["access_key_id"]}
    assert cloud.works(before)
    in_cloud.now += LEASE + timedelta(seconds=1)
    in_cloud.later()
    after = in_cloud.value("aws")
    assert cloud.key_ids() == {before["access_key_id"], after["access_key_id"]}
    assert lost not in cloud.key_ids()


def test_aws_that_refuses_leaves_the_key(in_cloud: Rotating, cloud: Aws) -> None:
    in_cloud.plan("aws", "aws-access-key", {"user": "nobody", "admin_secret": "aws-admin"})
    status = in_cloud.rotate("aws")
    assert status.latest.error == "AWS refuses ListAccessKeys: NoSuchEntity."
    assert cloud.works(in_cloud.value("aws"))


# Webhooks.


@dataclass
class Receiver:
    """A server of a user's, which checks what it is told."""

    port: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    forged: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    key: bytes = b"signing-key"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/rotate?team=a"

    def take(self, headers: Any, body: bytes) -> int:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        if not hmac.compare_digest(wanted, headers["webhook-signature"]):
            self.forged += 1
            return 401
        message = json.loads(body)
        self.told.append(message)
        self.ids.append(headers["webhook-id"])
        return self.answers.get(message["type"], 204)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = made.take(self.headers, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            if status == 302:
                self.send_header("location", f"http://127.0.0.1:{made.port}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def hooked(rotating: Rotating, receiver: Receiver) -> Rotating:
    rotating.vault.create("hook", {"password": "old", "user": "ada"}, "key:owner")
    rotating.vault.create("hook-key", {"key": receiver.key.decode()}, "key:owner")
    rotating.plan("hook", "webhook", {"url": receiver.url, "signing_secret": "hook-key", "length": 24}, grace=60)
    return rotating


def test_a_webhook_is_told_each_step_and_every_word_is_signed(hooked: Rotating, receiver: Receiver) -> None:
    status = hooked.rotate("hook")
    assert (status.latest.state, status.latest.error) == (State.DONE, "")
    hooked.later(minutes=2)
    assert [message["type"] for message in receiver.told] == ["rotation.set", "rotation.test", "rotation.retire"]
    new = hooked.value("hook")
    assert len(new["password"]) == 24
    told = receiver.told[0]["data"]
    assert told["current"] == {"password": "old", "user": "ada"}
    assert told["pending"] == new
    assert "current" not in receiver.told[1]["data"]
    assert receiver.told[2]["data"]["previous"] == told["current"]
    assert receiver.ids == [f"{status.latest.id}.{step}" for step in ("set", "test", "retire")]
    assert receiver.forged == 0


@pytest.mark.parametrize("answer", [302, 400, 500, 503])
def test_a_webhook_that_does_not_agree_is_told_to_take_it_back(
    hooked: Rotating, receiver: Receiver, answer: int
) -> None:
    receiver.answers["rotation.test"] = answer
    status = hooked.rotate("hook")
    assert status.latest.error == f"The webhook at 127.0.0.1:{receiver.port} answered test with {answer}."
    assert [message["type"] for message in receiver.told] == ["rotation.set", "rotation.test", "rotation.rollback"]
    assert hooked.value("hook")["password"] == "old"


def test_a_webhook_with_another_key_believes_nothing(hooked: Rotating, receiver: Receiver) -> None:
    hooked.vault.update("hook-key", {"key": "another"}, "key:owner")
    assert hooked.rotate("hook").running.state is State.ROLLBACK
    assert receiver.told == []
    assert receiver.forged > 0


def test_a_webhook_that_trickles_is_cut_off(hooked: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header a byte at a time would keep the lease's holder for ever."""
    monkeypatch.setattr(webhook, "_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connected, _ = server.accept()
            with suppress(OSError), connected:
                connected.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not stopped.wait(0.1):
                    connected.sendall(b"a")

        stopped = threading.Event()
        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        hooked.plan("hook", "webhook", {"url": url, "signing_secret": "hook-key"})
        hooked.policies.request("hook", "key:asker")
        begun = time.monotonic()
        assert hooked.runner.work()
        assert time.monotonic() - begun < 20
        stopped.set()
        thread.join()
    assert "does not answer" in hooked.policies.get("hook").running.error


def test_where_a_webhook_may_not_be(hooked: Rotating) -> None:
    def refused(url: str) -> str:
        with pytest.raises((OptionsInvalid, TargetForbidden)) as caught:
            hooked.plan("hook", "webhook", {"url": url, "signing_secret": "hook-key"})
        return caught.value.error_reason

    assert refused("http://example.com/hook") == "ROTATION_OPTIONS_INVALID"
    assert refused("https://user:hush@127.0.0.1/") == "ROTATION_OPTIONS_INVALID"
    assert refused("file:///etc/passwd") == "ROTATION_OPTIONS_INVALID"
    assert refused("https://[::1") == "ROTATION_OPTIONS_INVALID"
    assert refused("https://127.0.0.1:99999/") == "ROTATION_OPTIONS_INVALID"
    assert refused("https://169.254.169.254/latest/meta-data") == "ROTATION_TARGET_FORBIDDEN"
    assert refused("https://127.0.0.1.example.com/") == "ROTATION_TARGET_FORBIDDEN"
    # urllib3 and the check must agree on the host.
    assert refused("https://example.com\\@127.0.0.1/") in ("ROTATION_OPTIONS_INVALID", "ROTATION_TARGET_FORBIDDEN")
    assert refused("https://127.0.0.1#@example.com/") == "ROTATION_OPTIONS_INVALID"
