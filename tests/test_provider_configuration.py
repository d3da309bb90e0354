"""STRONGROOM_PROVIDERS: a mistake is named, a credential never is, and nothing is accepted that would not be obeyed."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.secrets.providers import aws, azure, gcp, openbao
from services.secrets.providers.configuration import ProvidersConfiguration, load
from services.secrets.providers.opening import open_all
from services.shared.configuration import ConfigurationError
from strongroom.local.environment import _owner
from tests.secrets_installation import PLANTED, Installation

pytestmark = pytest.mark.row("S4.2")

_AWS = {"kind": "aws", "region": "eu-west-1"}
_TOKEN = {"method": "token", "token": {"environment": "STRONGROOM_PROVIDER_TOKEN"}}
_BAO = {"kind": "openbao", "endpoint": "https://bao.example.com:8200", "sign_in": _TOKEN}
_AZURE = {"kind": "azure", "endpoint": "https://one.vault.azure.net"}


def _file(folder: Path, fields: object) -> Path:
    file = folder / "providers.yaml"
    file.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return file


def _loaded(folder: Path, **fields: Any) -> ProvidersConfiguration:
    return load(_file(folder, fields))


def test_without_a_file_there_is_the_embedded_one() -> None:
    assert load(None) == ProvidersConfiguration()


def test_all_kinds_are_accepted(tmp_path: Path) -> None:
    approle = {"method": "approle", "role_id": {"file": "/a"}, "secret_id": {"file": "/b"}}
    kubernetes = {"method": "kubernetes", "role": "strongroom"}
    found = _loaded(
        tmp_path,
        primary="embedded",
        replicas=["aws", "bao"],
        providers={
            "aws": _AWS,
            "bao": _BAO,
            "vault": _BAO | {"kind": "vault", "sign_in": approle, "namespace": "team/one"},
            "pod": _BAO | {"mount": "kv/team", "sign_in": kubernetes},
            "gcp": {"kind": "gcp", "project": "my-project", "locations": ["europe-west1"]},
            "azure": _AZURE | {"tenant": "t", "client_id": "c", "client_secret": {"file": "/c"}},
        },
    )
    assert found.replicas == ("aws", "bao")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"primary": "aws", "providers": {"aws": _AWS}}, "primary"),
        ({"replicas": ["aws"]}, "not among the providers: aws"),
        ({"replicas": ["aws", "aws"], "providers": {"aws": _AWS}}, "named twice"),
        ({"providers": {"embedded": _AWS}}, "embedded is the primary"),
        ({"providers": {"one": _AWS, "two": _AWS}}, "at the same place"),
        ({"providers": {"aws": _AWS | {"secret_key": {"file": "/a"}}}}, "come together"),
        ({"providers": {"aws": _AWS | {"access_key": PLANTED, "secret_key": PLANTED}}}, "access_key"),
        ({"providers": {"aws": _AWS | {"password": PLANTED}}}, "password"),
        ({"providers": {"azure": _AZURE | {"tenant": "t"}}}, "come together"),
        ({"providers": {"azure": _AZURE | {"endpoint": "http://one.vault.azure.net"}}}, "plain HTTP"),
        ({"providers": {"azure": _AZURE | {"endpoint": f"https://u:{PLANTED}@one.vault.azure.net"}}}, "without user"),
        ({"providers": {"bao": _BAO | {"endpoint": "http://bao.example.com"}}}, "plain HTTP"),
        ({"providers": {"bao": _BAO | {"mount": "../sys"}}}, "mount"),
        ({"providers": {"bao": _BAO | {"prefix": "a/../b"}}}, "prefix"),
        ({"providers": {"bao": _BAO | {"sign_in": {"method": "token", "token": PLANTED}}}}, "sign_in"),
        ({"providers": {"gcp": {"kind": "gcp", "project": "UP"}}}, "project"),
        (
            {"providers": {"gcp": {"kind": "gcp", "project": "my-project", "endpoint": "http://127.0.0.1:1"}}},
            "never sent over plain HTTP",
        ),
        ({"providers": {"Upper": _AWS}}, "providers"),
        ("replicas: [a]\nreplicas: [b]\n", "twice"),
        ("[" * 5000, "YAML"),
    ],
)
def test_mistake_is_named_and_no_value(tmp_path: Path, fields: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        load(_file(tmp_path, fields))
    assert PLANTED not in str(caught.value)


def test_credential_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(PLANTED)
    secret.chmod(0o644)
    sign_in = {"method": "token", "token": {"file": str(secret)}}
    found = _loaded(tmp_path, providers={"bao": _BAO | {"sign_in": sign_in}})
    with pytest.raises(ConfigurationError, match=r"The provider bao: .*chmod 600") as caught:
        open_all(found, object())  # type: ignore[arg-type]
    assert PLANTED not in str(caught.value)


def test_service_says_what_is_wrong_before_it_serves(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    file = _file(tmp_path, {"providers": {"bao": _BAO}})
    with pytest.raises(ConfigurationError, match="STRONGROOM_PROVIDER_TOKEN is empty"):
        installation.build(installation.settings.model_copy(update={"providers": file}))


def test_credentials_of_providers_are_the_secrets_services_alone() -> None:
    assert _owner("STRONGROOM_PROVIDERS") == "secrets"
    assert _owner("STRONGROOM_PROVIDER_TOKEN") == "secrets"
    assert _owner("STRONGROOM_PROVIDER_SECONDS") == "secrets"


@pytest.mark.parametrize("module", [aws, azure, gcp, openbao])
def test_no_credential_is_in_a_representation(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_PROVIDER_TOKEN", PLANTED)
    reference = {"environment": "STRONGROOM_PROVIDER_TOKEN"}
    kinds: dict[Any, dict[str, Any]] = {
        aws: _AWS | {"access_key": reference, "secret_key": reference},
        azure: _AZURE | {"tenant": "t", "client_id": "c", "client_secret": reference},
        gcp: {"kind": "gcp", "project": "my-project", "anonymous": True},
        openbao: _BAO,
    }
    found = _loaded(tmp_path, providers={"one": kinds[module]}).providers["one"]
    assert PLANTED not in f"{found!r} {module.opened(found)!r}"
