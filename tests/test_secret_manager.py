"""SecretManager as a program has it: each method, on a running Strongroom; what fails is False, or raises."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from strongroom import Client, CloudProviderFactory, SecretManager
from strongroom.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LocalFileError,
    NotFound,
    PermissionDenied,
    StrongroomError,
    Unauthenticated,
    Unavailable,
)
from tests.audit_trails import eventually
from tests.provider_kinds import fields
from tests.stack import RunningStack, Stack, free_port

pytestmark = pytest.mark.row("S4.8")

_VALUE = "planted-8KTnWmQ2"
_NEVER = "0 0 29 2 *"


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Secrets follow in AWS, and are kept with Google where it is named."""
    folder = tmp_path_factory.mktemp("providers")
    kinds = {"amazon": fields("aws", request, folder), "gcp": fields("gcp", request, folder)}
    file = folder / "providers.yaml"
    file.write_text(yaml.safe_dump({"replicas": ["amazon"], "providers": kinds}))
    environment = {"STRONGROOM_PROVIDERS": str(file), "STRONGROOM_PROVIDER_SECONDS": "0.1"}
    with RunningStack(folder / "data", **environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, api_key=stack.admin_key) as client:
        yield client


def _of(stack: Stack, *clouds: str, strict: bool = False, **options: object) -> SecretManager:
    factory = CloudProviderFactory()
    config = {"strongroom": {"url": stack.url, "api_key": stack.admin_key}, **options}
    return SecretManager(config, {kind: factory.create_provider(kind, {}) for kind in clouds}, strict=strict)


@pytest.fixture
def manager(stack: Stack) -> Iterator[SecretManager]:
    with _of(stack, "aws", "gcp") as manager:
        yield manager


@pytest.fixture
def strict(stack: Stack) -> Iterator[SecretManager]:
    with _of(stack, "aws", "gcp", strict=True) as manager:
        yield manager


@pytest.fixture
def name() -> str:
    return f"team/keys-{secrets.token_hex(4)}"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(secrets.token_bytes(300_000))
    return tmp_path / "model.safetensors"


@pytest.mark.row("S4.1")
def test_secret_is_written_to_the_primary_and_all_that_follow_it(manager: SecretManager, name: str) -> None:
    data = {"openai": _VALUE, "n": 3, "key": b"\0\1", "deep": {"list": [1, None, True]}}
    assert manager.create_secret(name, data) is True
    assert manager.get_secret(name) == data
    eventually(lambda: manager.get_secret(name, provider_name="aws") == data)  # which the service calls amazon
    assert manager.create_secret(name, {"openai": "other"}) is False
    assert manager.update_secret(name, {"openai": "new"}) is True
    assert manager.get_secret(name, "local") == {"openai": "new"}
    eventually(lambda: manager.get_secret(name, "amazon") == {"openai": "new"})
    assert manager.get_secret(name, "gcp") == {}


@pytest.mark.row("S4.1")
def test_secret_of_one_provider_is_written_there_alone(manager: SecretManager, client: Client, name: str) -> None:
    assert manager.create_secret(name, {"region": "us-west-2"}, provider_name="gcp") is True
    assert manager.create_secret(name, {"region": "other"}, provider_name="gcp") is False
    assert manager.update_secret(name, {"region": "eu-west-1"}, provider_name="gcp") is True
    assert manager.get_secret(name, provider_name="gcp") == {"region": "eu-west-1"}
    assert manager.get_secret(name) == {}
    assert manager.get_secret(name, "aws") == {}
    assert client.providers.at("gcp").value(name) == {"region": "eu-west-1"}


def test_what_fails_is_logged_without_values(
    manager: SecretManager, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert manager.update_secret(name, {"k": _VALUE}) is False
    assert manager.update_secret(name, {"k": _VALUE}, "gcp") is False
    assert manager.get_secret(name, "nowhere") == {}
    assert manager.create_secret(name, {"k": {_VALUE}}) is False
    assert manager.create_secret(name, [_VALUE]) is False  # type: ignore[arg-type]
    assert manager.create_secret("no/../name", {"k": _VALUE}) is False
    assert manager.upload_model_weights("scorer", tmp_path / "missing") is False
    assert manager.download_model_weights("missing", tmp_path) is False
    assert manager.delete_model_weights("missing", "v1") is False
    assert manager.rotate_model_weights_encryption("missing") is False
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 10
    assert "SECRET_NOT_FOUND" in said[0]
    assert "nowhere" in said[2]
    assert _VALUE not in caplog.text


def test_strict_errors_are_typed(strict: SecretManager, name: str, tmp_path: Path) -> None:
    assert strict.create_secret(name, {"k": 1})
    with pytest.raises(AlreadyExists):
        strict.create_secret(name, {"k": 2})
    with pytest.raises(NotFound):
        strict.get_secret(f"{name}-other")
    with pytest.raises(NotFound):
        strict.update_secret(f"{name}-other", {"k": 2}, "gcp")
    with pytest.raises(InvalidArgument, match="nowhere") as unknown:
        strict.get_secret(name, "nowhere")
    assert unknown.value.reason == "PROVIDER_UNKNOWN"
    with pytest.raises(InvalidArgument) as refused:
        strict.create_secret(name, {"k": {_VALUE}})
    assert _VALUE not in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(LocalFileError):
        strict.upload_model_weights("scorer", tmp_path / "missing")
    with pytest.raises(NotFound):
        strict.download_model_weights("missing", tmp_path)
    with pytest.raises(NotFound):
        strict.rotate_model_weights_encryption("missing")


@pytest.mark.row("S4.4")
def test_weights_get_a_timestamp_or_the_version_given(manager: SecretManager, weights: Path, tmp_path: Path) -> None:
    model = f"llama-{secrets.token_hex(4)}"
    assert manager.upload_model_weights(model, str(weights)) is True
    assert manager.upload_model_weights(model, weights, version="v1.0") is True
    assert manager.upload_model_weights(model, weights, version="v1.0") is False  # versions never change
    latest, timestamp = manager.list_available_models()[model]
    assert (latest, timestamp[:2]) == ("v1.0", "20")
    assert manager.download_model_weights(model, tmp_path / "out" / "one.safetensors") is True
    assert manager.download_model_weights(model, tmp_path / "out" / "folder", version=timestamp) is True
    assert manager.download_model_weights(model, tmp_path / "by-local", preferred_provider="local") is True
    content = weights.read_bytes()
    for copy in ("out/one.safetensors", "out/folder/model.safetensors", "by-local/model.safetensors"):
        assert (tmp_path / copy).read_bytes() == content
    assert manager.download_model_weights(model, "") is False
    assert manager.delete_model_weights(model, timestamp) is True
    assert manager.list_available_models()[model] == ["v1.0"]
    # No replica has them: what is nowhere else is not removed.
    assert manager.delete_model_weights(model, "v1.0", delete_all_providers=False) is False
    assert manager.list_available_models()[model] == ["v1.0"]


@pytest.mark.row("S4.6")
def test_encryption_of_one_model_or_of_all_is_rotated(
    stack: Stack, client: Client, weights: Path, tmp_path: Path
) -> None:
    into = client.managers.create("regression", manager_id=f"rotating-{secrets.token_hex(4)}")
    config = {"strongroom": {"url": stack.url, "api_key": stack.admin_key, "manager": into}}
    with SecretManager(config, {}) as manager:
        assert manager.upload_model_weights("a", weights, "v1")
        assert manager.upload_model_weights("b", weights, "v1")
        assert manager.rotate_model_weights_encryption("a") is True
        assert client.rotation.receipts(into) == []  # the key that wraps them stayed
        assert manager.rotate_model_weights_encryption() is True
        (receipt,) = client.rotation.receipts(into)
        assert (receipt.from_version, receipt.to_version) == (1, 2)
        assert client.models.verify("a", "v1", manager=into).is_valid
        assert manager.download_model_weights("b", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == weights.read_bytes()


@pytest.mark.row("S4.3")
def test_rotation_status_is_that_of_the_service(manager: SecretManager, client: Client, name: str) -> None:
    assert manager.create_secret(name, {"password": "first"})
    assert name not in manager.get_rotation_status()["secrets"]
    client.secret_rotation.set(name, "random", schedule=_NEVER)
    status = manager.get_rotation_status()
    assert status["enabled"] is True
    assert status["next_run_at"] <= status["secrets"][name]["next_run_at"]
    told = status["secrets"][name]
    assert (told["rotator"], told["schedule"], told["state"], told["failures"]) == ("random", _NEVER, "idle", 0)
    assert told["last_success_at"] is None
    client.secret_rotation.finished(client.secret_rotation.rotate(name))
    assert manager.get_rotation_status()["secrets"][name]["last_success_at"]
    assert manager.get_secret(name)["password"] != "first"
    client.secret_rotation.remove(name)


def test_start_says_what_the_service_lacks(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "strongroom.secret_manager")
    vault = {"enabled": True, "address": "https://vault.example.com:8200"}
    weights = {"storage_type": "gcp", "gcs_bucket": "models", "cache_enabled": True}
    options = {"vault": vault, "model_weights": weights, "rotation": {"enabled": True, "schedule": "0 0 * * 0"}}
    with _of(stack, "aws", "azure", "local", **options) as manager:
        assert manager.list_available_models() is not None
    warned = "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "keeps nothing with azure (azure). Add it to the file that STRONGROOM_PROVIDERS names" in warned
    assert "keeps nothing with vault" in warned
    assert "storage_type is gcp, the service's primary store is local" in warned
    assert "no secret rotates yet" in warned
    assert "aws" not in warned
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    for option in ("vault.address", "model_weights.gcs_bucket", "model_weights.cache_enabled", "rotation.schedule"):
        assert [line for line in told if line.startswith(option)], option
    assert [line for line in told if "secrets with aws and no weights" in line]
    with pytest.raises(FailedPrecondition, match="azure") as lacking, _of(stack, "azure", strict=True):
        pass
    assert lacking.value.reason == "SERVICE_LACKS"


def test_caller_that_may_not_look_is_served_all_the_same(stack: Stack, client: Client, name: str) -> None:
    client.secrets.put(name, {"k": 1})
    key = client.keys.create("reader", permissions=["secrets.read"], scopes=[f"secrets/{name}"])
    factory = CloudProviderFactory()
    config = {"strongroom": {"url": stack.url, "api_key": key.key}}
    with SecretManager(config, {"azure": factory.create_provider("azure", {})}, strict=True) as manager:
        assert manager.get_secret(name) == {"k": 1}
        with pytest.raises(PermissionDenied):
            manager.update_secret(name, {"k": 2})
        with pytest.raises(PermissionDenied):
            manager.get_secret(name, "gcp")


def test_service_that_is_not_there_or_refuses(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {"strongroom": {"url": stack.url, "api_key": f"wrong-{_VALUE}"}}
    with SecretManager(wrong, {}) as manager:
        assert manager.get_secret("any") == {}
    with pytest.raises(Unauthenticated), SecretManager(wrong, {}, strict=True):
        pass
    gone = {"strongroom": {"url": f"http://127.0.0.1:{free_port()}", "api_key": _VALUE}}
    manager = SecretManager(gone, {}, strict=True)
    with pytest.raises(Unavailable):
        manager.start()
    with pytest.raises(FailedPrecondition, match="call start"):  # it did not stay half started
        manager.list_available_models()
    assert _VALUE not in caplog.text


def test_start_and_stop_are_repeatable(stack: Stack, name: str) -> None:
    manager = _of(stack)
    assert manager.get_secret(name) == {}
    manager.stop()
    manager.start()
    manager.start()
    assert manager.create_secret(name, {"k": 1})
    manager.stop()
    manager.stop()
    assert manager.get_secret(name) == {}
    with manager:
        assert manager.get_secret(name) == {"k": 1}


def test_credential_of_the_environment_goes_only_where_it_belongs(
    stack: Stack, name: str, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_API_KEY", stack.admin_key)
    with SecretManager({"strongroom": {"url": stack.url}}, {}, strict=True) as manager:
        assert manager.create_secret(name, {"k": 1})
    monkeypatch.setenv("STRONGROOM_URL", stack.url)
    with SecretManager({}, {}, strict=True) as manager:
        assert manager.get_secret(name) == {"k": 1}
    elsewhere = {"strongroom": {"url": stack.url.replace("127.0.0.1", "localhost")}}
    with pytest.raises(StrongroomError), SecretManager(elsewhere, {}, strict=True):
        pass
