"""The Secret Management API's example runs with its imports changed, and its YAML is accepted."""

import ast
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from strongroom import Client, SecretManager
from tests.provider_kinds import fields
from tests.stack import RunningStack, Stack, inherited
from tests.store_servers import BUCKET, S3Server

_PAGE = (Path(__file__).resolve().parent.parent / "docs" / "secret-manager.md").read_text()
PROGRAM = next(iter(re.findall(r"```python\n(from src\..*?)```", _PAGE, re.DOTALL)))
DOCUMENTED = next(iter(re.findall(r"```yaml\n(.*?)```", _PAGE, re.DOTALL)))
_IMPORTS = {
    "from src.secrets.secret_manager import SecretManager": "from strongroom import SecretManager",
    "from src.cloud.factory import CloudProviderFactory": "from strongroom import CloudProviderFactory",
}


@pytest.fixture(scope="module")
def in_clouds(
    request: pytest.FixtureRequest, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Weights on disk and in S3, by the document's YAML; secrets with AWS and Google, too."""
    folder = tmp_path_factory.mktemp("clouds")
    stores, providers = folder / "document.yaml", folder / "providers.yaml"
    weights = {"storage_type": "local", "s3_bucket": BUCKET, "cache_enabled": True, "cache_directory": "cache"}
    stores.write_text(yaml.safe_dump({"secrets": {"model_weights": weights}}))
    kinds = {name: fields(name, request, folder) for name in ("aws", "gcp")}
    providers.write_text(yaml.safe_dump({"replicas": ["aws", "gcp"], "providers": kinds}))
    running = RunningStack(
        folder / "data",
        STRONGROOM_STORES=str(stores),
        STRONGROOM_PROVIDERS=str(providers),
        STRONGROOM_PROVIDER_SECONDS="0.1",
        AWS_ENDPOINT_URL_S3=s3_server.url,
        AWS_ACCESS_KEY_ID=s3_server.access_key,
        AWS_SECRET_ACCESS_KEY=s3_server.secret_key,
    )
    with running as stack:
        yield stack


@pytest.mark.row("S4.8")
@pytest.mark.row("S4.9")
@pytest.mark.parametrize("where", ["stack", "in_clouds"])
def test_example_runs_with_its_imports_changed(request: pytest.FixtureRequest, tmp_path: Path, where: str) -> None:
    stack: Stack = request.getfixturevalue(where)
    program = PROGRAM
    for before, now in _IMPORTS.items():
        assert before in program
        program = program.replace(before, now)
    with Client(stack.url, api_key=stack.admin_key) as client:
        manager = client.managers.create("regression", manager_id=f"example-{uuid.uuid4().hex[:8]}")
    config = yaml.safe_load(DOCUMENTED) | {"strongroom": {"manager": manager}}
    given = f"config = {config!r}\naws_config = {{'region': 'us-west-2'}}\ngcp_config = {{'project': 'acme'}}\n"
    (tmp_path / "program.py").write_text(given + program)
    weights = tmp_path / "models" / "llama-7b"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text(json.dumps({"layers": 32}))
    (weights / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    environment = inherited() | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(
        r"Upload successful: True\nAvailable models:\n  llama-7b: \['[^']+'\]\nDownload successful: True\n"
        r"Retrieved API keys: (\{.*\})\n",
        done.stdout,
    )
    assert said, done.stdout
    # A secret is an object: its fields have no order.
    assert ast.literal_eval(said[1]) == {"openai": "sk-1234567890", "huggingface": "hf_1234567890"}
    downloaded = tmp_path / "downloaded_models"
    assert {file.name: file.read_bytes() for file in downloaded.iterdir()} == {
        file.name: file.read_bytes() for file in weights.iterdir()
    }
    assert stack.admin_key not in done.stdout + done.stderr


@pytest.mark.row("S4.9")
def test_stores_are_those_of_the_document(in_clouds: Stack) -> None:
    with Client(in_clouds.url, api_key=in_clouds.admin_key) as client:
        shown = [(store.name, store.kind, store.role) for store in client.stores.show().stores]
    assert shown == [("local", "local", "primary"), ("aws", "s3", "replica")]
    logs = (in_clouds.data_dir / "logs" / "models.log").read_text()
    assert "is a file of the Secret Management API, and is obeyed" in logs


@pytest.mark.row("S4.4")
@pytest.mark.row("S4.8")
def test_weights_are_read_from_a_replica_and_deleted_in_the_primary_alone(in_clouds: Stack, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(range(256)) * 4096)
    config = {"strongroom": {"url": in_clouds.url, "api_key": in_clouds.admin_key}}
    with SecretManager(config, {}, strict=True) as manager, Client(in_clouds.url, api_key=in_clouds.admin_key) as c:
        assert manager.upload_model_weights("scorer", tmp_path / "w.bin", version="v1.0")
        assert manager.upload_model_weights("scorer", str(tmp_path / "w.bin"), version="v1.1")
        c.stores.wait("aws")
        assert manager.download_model_weights("scorer", tmp_path / "by-aws", "v1.0", preferred_provider="aws")
        assert (tmp_path / "by-aws" / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()
        assert manager.delete_model_weights("scorer", "v1.0", delete_all_providers=False)
        assert manager.list_available_models()["scorer"] == ["v1.1", "v1.0"]
        assert manager.download_model_weights("scorer", tmp_path / "again.bin", "v1.0")
        assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()
        assert manager.delete_model_weights("scorer", "v1.0")
        assert manager.list_available_models()["scorer"] == ["v1.1"]
