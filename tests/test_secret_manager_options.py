"""The document's options: each has a meaning or is refused, and an error says the nearest name and never a value."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.models.settings import ModelsSettings
from services.models.stores.configuration import StoresConfiguration
from services.models.stores.configuration import load as load_stores
from services.secrets.providers.configuration import load as load_providers
from services.shared.configuration import ConfigurationError
from strongroom import CloudProviderFactory, SecretManager
from strongroom.errors import InvalidArgument
from strongroom.secret_options import parse
from tests.test_secret_manager_document import DOCUMENTED

pytestmark = pytest.mark.row("S4.9")

_SECRET = "kX9-not-to-be-shown"
_CLOUDS = ("AWS_REGION", "AWS_DEFAULT_REGION", "AZURE_STORAGE_ACCOUNT")


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _CLOUDS:
        monkeypatch.delenv(name, raising=False)


def _stores(folder: Path, fields: object) -> StoresConfiguration:
    file = folder / "document.yaml"
    file.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    return load_stores(file)


def test_document_is_read_with_its_key_and_without() -> None:
    documented = yaml.safe_load(DOCUMENTED)
    options = parse(documented)
    assert options == parse(documented["secrets"])
    assert options.model_weights.storage_type == "aws"
    assert options.model_weights.cache_max_size_gb == 10
    assert options.rotation.schedule == "0 0 * * 0"
    assert "vault.address" in options.given
    assert parse({**documented, "logging": {"level": "info"}, "strongroom": {"manager": "m"}}).strongroom.manager == "m"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_weights": {"s3_bukket": _SECRET}}, "model_weights.s3_bukket. Did you mean s3_bucket?"),
        ({"secrets": {"vaults": {}}}, "no option vaults. Did you mean vault?"),
        ({"secret": {}}, "There is no option secret. Did you mean secrets?"),
        ({"secrets": {}, "strongrom": {}}, "Did you mean strongroom?"),
        ({"secrets": {}, "rotation": {"enabled": True}}, "rotation stands beside secrets"),
        ({"vault": {"token": _SECRET}}, "vault.token. There are: enabled, address, auth_method."),
        ({"vault": {_SECRET: 1}}, "vault.…"),
        ({"vault": {"enabled": True}}, "say where Vault is"),
        ({"vault": {"auth_method": _SECRET}}, "kubernetes, approle, token"),
        ({"vault": _SECRET}, "vault: write options with their names"),
        ({"model_weights": {"storage_type": _SECRET}}, "aws, gcp, azure, local"),
        ({"model_weights": {"checksum_algorithm": "md5"}}, "checked by sha256, and by nothing else"),
        ({"model_weights": {"encryption_enabled": False}}, "encrypted before a store sees them"),
        ({"model_weights": {"access_control_enabled": False}}, "can't be turned off"),
        ({"model_weights": {"versioning_enabled": False}}, "can't be turned off"),
        ({"model_weights": {"sync_enabled": _SECRET}}, "write true or false"),
        ({"model_weights": {"cache_max_size_gb": True}}, "write a number"),
        ({"model_weights": {"cache_max_size_gb": -1}}, "above 0"),
        ({"rotation": {"schedule": "weekly"}}, "five fields"),
        ({"strongroom": {"api_key": 1}}, "write text"),
        ([_SECRET], "write options with their names"),
    ],
)
def test_mistake_is_named_and_no_value(config: Any, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        SecretManager(config, {})
    assert said in str(refused.value)
    assert _SECRET not in str(refused.value)


def test_services_take_the_document_as_it_is(tmp_path: Path) -> None:
    found = _stores(tmp_path, DOCUMENTED)
    assert found.names == ("aws", "gcp")  # in which account Azure's container is, nobody said
    assert {name: store.kind for name, store in found.stores.items()} == {"aws": "s3", "gcp": "gcs"}
    assert found.stores["aws"].bucket == "llm-models"
    assert found.cache is not None
    assert (found.cache.path, found.cache.max_size_gb) == (tmp_path / "weights_cache", 10)
    file = tmp_path / "document.yaml"
    assert (load_providers(file).replicas, load_providers(file).providers) == ((), {})


def test_environment_says_what_the_document_has_no_option_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acme")
    found = _stores(tmp_path, DOCUMENTED)
    assert found.names == ("aws", "gcp", "azure")
    assert found.stores["aws"].region == "eu-central-1"
    assert found.stores["azure"].endpoint == "https://acme.blob.core.windows.net"


def test_local_weights_are_where_they_are_without_the_file(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = clean_environment / "document.yaml"
    file.write_text("model_weights: {storage_type: local, s3_bucket: models, sync_enabled: false}")
    monkeypatch.setenv("STRONGROOM_STORES", str(file))
    data = clean_environment / "data"
    found = ModelsSettings(data_dir=data).stores_configuration()
    assert found.names == ("local",)
    assert found == ModelsSettings(data_dir=data, stores=None).stores_configuration()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"storage_type": "aws"}, "model_weights.s3_bucket: storage_type is aws"),
        ({"storage_type": "azure", "azure_container": "models"}, "AZURE_STORAGE_ACCOUNT"),
        ({"storage_type": "aws", "s3_bucket": "No Such"}, "stores.aws"),
        ({"storage_type": "local", "checksum_algorithm": "md5"}, "sha256"),
        ({"storage_tipe": "local"}, "Did you mean storage_type?"),
    ],
)
def test_services_refuse_what_they_would_not_obey(tmp_path: Path, weights: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace(".", r"\.").replace("?", r"\?")):
        _stores(tmp_path, {"secrets": {"model_weights": weights}})


@pytest.mark.parametrize("method", ["kubernetes", "approle", "token"])
def test_vault_of_the_document_is_a_replica(tmp_path: Path, method: str) -> None:
    file = tmp_path / "document.yaml"
    file.write_text(
        DOCUMENTED.replace("enabled: false\n    address", "enabled: true\n    address").replace("kubernetes", method)
    )
    found = load_providers(file)
    assert found.replicas == ("vault",)
    vault = found.providers["vault"]
    assert (vault.kind, vault.endpoint, vault.sign_in.method) == ("vault", "https://vault.example.com:8200", method)


def test_vault_of_the_document_shows_nothing_over_plain_http(tmp_path: Path) -> None:
    file = tmp_path / "document.yaml"
    file.write_text("vault: {enabled: true, address: 'http://vault.example.com:8200'}")
    with pytest.raises(ConfigurationError, match="plain HTTP"):
        load_providers(file)


@pytest.mark.row("S4.8")
def test_cloud_provider_shows_no_credential() -> None:
    given = {"region": "us-west-2", "secret_access_key": _SECRET, "endpoint": f"https://me:{_SECRET}@example.com"}
    made = CloudProviderFactory().create_provider("aws", given)
    assert (made.kind, made.configuration) == ("aws", given)
    assert repr(made) == "CloudProvider('aws', region='us-west-2')"
    manager = SecretManager({"strongroom": {"api_key": _SECRET, "url": f"https://{_SECRET}"}}, {"aws": made})
    assert _SECRET not in repr(manager)
    assert _SECRET not in repr(manager._options)


@pytest.mark.row("S4.8")
@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("azur", {}, "There is no kind of provider azur. Did you mean azure"),
        (_SECRET, {}, "There are: aws, gcp, azure, vault, local"),
        ("aws", [_SECRET], "is a dictionary"),
        ("aws", {"region": 1}, "region is text"),
        ("aws", {str(n): _SECRET for n in range(101)}, "more than 100"),
    ],
)
def test_cloud_provider_that_can_be_none_is_refused(kind: str, config: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        CloudProviderFactory().create_provider(kind, config)
    assert _SECRET not in str(refused.value)


@pytest.mark.row("S4.8")
def test_cloud_providers_of_others_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="CloudProviderFactory"):
        SecretManager({}, {"aws": object()})  # type: ignore[dict-item]
