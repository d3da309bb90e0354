"""An installation whose weights are in a cloud: from the command line to the bucket and back, over REST and gRPC."""

import random
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from strongroom.client import Client
from strongroom.errors import StrongroomError
from tests.faulty_line import FaultyLine, faulty_line
from tests.stack import RunningStack, Stack
from tests.store_servers import BUCKET, S3Server

pytestmark = pytest.mark.row("S4.5")


@pytest.fixture(scope="module")
def line(s3_server: S3Server) -> Iterator[FaultyLine]:
    with faulty_line(s3_server.url) as line:
        yield line


@pytest.fixture(scope="module")
def in_a_bucket(s3_server: S3Server, line: FaultyLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bucket")
    bucket = {
        "kind": "s3",
        "bucket": BUCKET,
        "prefix": "installation",
        "endpoint": line.url,
        "access_key": {"environment": "STRONGROOM_STORE_ACCESS_KEY"},
        "secret_key": {"environment": "STRONGROOM_STORE_SECRET_KEY"},
    }
    file = folder / "stores.yaml"
    file.write_text(yaml.safe_dump({"primary": "bucket", "stores": {"bucket": bucket}}))
    environment = {
        "STRONGROOM_STORES": str(file),
        "STRONGROOM_STORE_ACCESS_KEY": s3_server.access_key,
        "STRONGROOM_STORE_SECRET_KEY": s3_server.secret_key,
    }
    with RunningStack(folder / "data", **environment) as stack:
        yield stack


@pytest.fixture
def client(in_a_bucket: Stack) -> Iterator[Client]:
    with Client(in_a_bucket.url, api_key=in_a_bucket.admin_key) as client:
        yield client


@pytest.mark.slow
def test_weights_go_to_the_bucket_and_come_back(
    client: Client, in_a_bucket: Stack, line: FaultyLine, s3_server: S3Server, tmp_path: Path
) -> None:
    content = random.Random(3).randbytes(20 << 20)
    (tmp_path / "weights.bin").write_bytes(content)
    client.models.push("scorer", tmp_path / "weights.bin", version="v1")
    client.models.pull("scorer", tmp_path / "copy.bin", version="v1")
    assert (tmp_path / "copy.bin").read_bytes() == content
    assert any("uploadId=" in request for request in line.requests)
    assert not [path for path in (in_a_bucket.data_dir / "weights").rglob("*") if path.is_file()]
    path = "/api/v1/managers/default/models/scorer/versions/v1/files/weights.bin"
    request = urllib.request.Request(f"{in_a_bucket.url}{path}", headers={"X-API-Key": in_a_bucket.admin_key})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own http URL
        assert answer.read() == content
    logs = "".join(log.read_text(errors="replace") for log in (in_a_bucket.data_dir / "logs").glob("*.log"))
    assert s3_server.secret_key not in logs


def test_upload_that_a_full_bucket_ends_is_repeated_when_there_is_room(
    client: Client, line: FaultyLine, tmp_path: Path
) -> None:
    content = random.Random(4).randbytes(12 << 20)
    (tmp_path / "weights.bin").write_bytes(content)
    line.plan("full", 1_000_000, lambda request: request.startswith(("PUT", "POST")))
    with pytest.raises(StrongroomError, match="no room"):
        client.models.push("full", tmp_path / "weights.bin", version="v1")
    line.heal()
    client.models.push("full", tmp_path / "weights.bin", version="v1")
    client.models.pull("full", tmp_path / "copy.bin", version="v1")
    assert (tmp_path / "copy.bin").read_bytes() == content
