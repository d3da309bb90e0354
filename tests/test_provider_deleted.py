"""What was deleted in a provider, and is kept there for a while, is not there for us and does not stand in our way."""

import secrets
from pathlib import Path

import pytest

from services.shared.errors import Aborted, NotFound
from tests import aws
from tests.key_vault import KeyVaultServer
from tests.provider_kinds import fields, new_provider, opened

pytestmark = pytest.mark.row("S4.2")


def test_secret_in_its_recovery_window_at_aws(request: pytest.FixtureRequest, tmp_path: Path, moto_url: str) -> None:
    given = fields("aws", request, tmp_path)
    provider = opened(given)
    first = provider.put("prod/db", {"n": 1})
    place = {"SecretId": f"{given['prefix']}/prod/db"}
    for n, expected in ((2, None), (3, "")):
        aws.client("secretsmanager", moto_url).delete_secret(**place, RecoveryWindowInDays=7)
        for look in (provider.get, provider.versions):
            with pytest.raises(NotFound):
                look("prod/db")
        assert not list(provider.list())
        assert not provider.delete("prod/db")
        with pytest.raises(Aborted):
            provider.put("prod/db", {"n": 0}, expected=first.revision)
        provider.put("prod/db", {"n": n}, expected=expected)
        assert provider.get("prod/db").data == {"n": n}


def test_secret_that_a_key_vault_keeps(
    request: pytest.FixtureRequest, tmp_path: Path, key_vault: KeyVaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_vault.vault, "keeps", True)
    provider = new_provider("azure", request, tmp_path)
    name = f"prod/{secrets.token_hex(4)}"
    for n in range(2):
        provider.put(name, {"n": n}, expected="")
        assert provider.get(name).data == {"n": n}
        assert provider.delete(name)
        assert not provider.delete(name)
        with pytest.raises(NotFound):
            provider.get(name)
