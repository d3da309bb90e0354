"""A real moto server, which speaks AWS's protocols over HTTP on a free loopback port, in a process of its own."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3

from tests.stack import free_port

REGION = "eu-west-1"
# What moto takes from whoever has not been made a user of it.
ANYBODY = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
    "AWS_DEFAULT_REGION": REGION,
}


@contextmanager
def moto(**environment: str) -> Iterator[str]:
    """Runs it while the block runs; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def verify_signatures(url: str) -> None:
    """From now on moto refuses what is not signed by a secret that it gave out (`INITIAL_NO_AUTH_ACTION_COUNT`)."""
    text = {"content-type": "text/plain"}
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", text, method="POST")  # noqa: S310
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - always our own http URL


def client(service: str, url: str) -> Any:
    """boto3's for `service` of the moto at `url`, as anybody."""
    given = {name.lower(): value for name, value in ANYBODY.items() if name != "AWS_DEFAULT_REGION"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **given)


def assume_role(url: str, arn: str) -> dict[str, str]:
    """Makes the role and takes it on, as a workload does: its credentials, as environment. From now on they count."""
    client("iam", url).create_role(RoleName=arn.rpartition("/")[2], AssumeRolePolicyDocument="{}")
    made = client("sts", url).assume_role(RoleArn=arn, RoleSessionName="job-1")["Credentials"]
    verify_signatures(url)
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=2):  # noqa: S310 - always our own http URL
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "moto ended"
            time.sleep(0.1)
    raise AssertionError("moto did not answer")
