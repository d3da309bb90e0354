"""STRONGROOM_STORES: a mistake is named, a secret never is, and nothing is accepted that would not be obeyed."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

from services.models.settings import ModelsSettings
from services.models.stores.configuration import StoresConfiguration, load
from services.models.stores.local import LocalStore
from services.models.stores.opening import open_all
from services.shared.configuration import ConfigurationError
from strongroom.local.environment import _owner

pytestmark = pytest.mark.row("S4.5")

_SECRET = "kX9-not-to-be-shown"
_AWS = {"kind": "s3", "bucket": "models", "region": "eu-west-1"}
_GOOGLE = {"kind": "gcs", "bucket": "models"}
_AZURE = {"kind": "azure", "container": "models", "endpoint": "https://acme.blob.core.windows.net"}
_DISK = {"kind": "local", "path": "weights"}


def _file(folder: Path, fields: object) -> Path:
    file = folder / "stores.yaml"
    file.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    return file


def _one(store: dict) -> dict:
    return {"primary": "one", "stores": {"one": store}}


def _private(file: Path, text: str) -> Path:
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def test_primary_and_replicas_are_named_in_order(tmp_path: Path) -> None:
    stores = {"disk": _DISK, "aws": _AWS, "google": _GOOGLE, "azure": _AZURE}
    found = load(_file(tmp_path, {"primary": "aws", "replicas": ["disk", "google", "azure"], "stores": stores}))
    assert found.names == ("aws", "disk", "google", "azure")
    assert found.stores["disk"].path == tmp_path / "weights"  # beside the file


def test_without_a_file_weights_are_on_the_local_disk(clean_environment: Path) -> None:
    settings = ModelsSettings(data_dir=clean_environment)
    stores = open_all(settings.stores_configuration())
    assert list(stores) == ["local"]
    stores["local"].put("packs/ab/1", b"x")
    assert (clean_environment / "weights/packs/ab/1").read_bytes() == b"x"


def test_the_variable_names_the_file(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_STORES", str(_file(clean_environment, _one(_DISK))))
    (store,) = open_all(ModelsSettings().stores_configuration()).values()
    assert isinstance(store, LocalStore)


_WRONG = [
    ("primary: [", "not YAML"),
    ("- a list", "file"),
    ("primary: one\nprimary: two\nstores: {}", "twice"),
    ("{primary: one, stores: {one: {kind: local, path: a}, one: {kind: local, path: b}}}", "twice"),
    ("primary: !!python/object/apply:os.system [id]", "not YAML"),
    ("[" * 1000, "not YAML"),
    ("x" * 70_000, "larger"),
    ("a: &a [x]\nprimary: *a", "aliases"),
    ("primary: 2001-99-99", "not YAML"),
    ("primary: " + "9" * 5000, "not YAML"),
    (_one(_DISK | {"path": "a\0b"}), "no file can"),
    ("".join(f"field{chr(97 + n)}: x\n" for n in range(26)), "and 23 more"),
    ({"primary": "one", "stores": {}}, "stores"),
    ({"primary": "two", "stores": {"one": _DISK}}, "two"),
    ({"primary": "one", "replicas": ["one"], "stores": {"one": _DISK}}, "twice"),
    ({"primary": "one", "stores": {"one": _DISK, "two": _AWS}}, "two"),
    ({"primary": "one", "replicas": ["two"], "stores": {"one": _AWS, "two": dict(_AWS)}}, "same place"),
    ({"primary": "../up", "stores": {"../up": _DISK}}, "primary"),
    (_one({"kind": "ftp", "path": "a"}), "kind"),
    (_one(_DISK | {"pth": "b"}), "pth"),
    (_one({"kind": "local"}), "path"),
    (_one(_AWS | {"bucket": "../other"}), "bucket"),
    (_one(_AWS | {"prefix": "/absolute"}), "prefix"),
    (_one(_AWS | {"prefix": "a/../b"}), "prefix"),
    (_one(_AWS | {"secret_key": {"environment": "KEY"}}), "come together"),
    (_one(_AWS | {"access_key": {"environment": "A", "file": "b"}, "secret_key": {"file": "c"}}), "name a file"),
    (_one(_AWS | {"endpoint": "http://minio:9000"}), "plain HTTP"),
    (_one(_AWS | {"endpoint": "https://user:password@minio"}), "without user"),
    (_one(_AWS | {"endpoint": "https://minio/?sig=abc"}), "query"),
    (_one(_AWS | {"endpoint": "file:///etc/passwd"}), "https://"),
    (_one(_AZURE | {"endpoint": "http://acme.blob.core.windows.net"}), "plain HTTP"),
]


@pytest.mark.parametrize(("fields", "named"), _WRONG, ids=[named for _, named in _WRONG])
def test_mistake_is_named(tmp_path: Path, fields: object, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load(_file(tmp_path, fields))


def test_an_error_has_one_line_and_repeats_nothing_that_may_be_secret(tmp_path: Path) -> None:
    for wrong in ({"primary": "one", f"{_SECRET}\nmore": 1}, _one({"kind": f"{_SECRET}\n"}), {_SECRET: {}}):
        with pytest.raises(ConfigurationError) as caught:
            load(_file(tmp_path, wrong))
        assert str(caught.value).isprintable()
        assert _SECRET not in str(caught.value)


def test_a_small_file_does_not_grow_by_merges_or_keys(tmp_path: Path) -> None:
    """Each line refers twice to the one before: 2 to the 40 in a key that is compared by its text."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 41)), "? [*a40]\n: x"]
    merges = ["a0: &a0 {x: y}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 41))]
    for text in (lines, merges):
        with pytest.raises(ConfigurationError, match="aliases"):
            load(_file(tmp_path, "\n".join(text)))


def test_plain_http_may_be_wanted(tmp_path: Path) -> None:
    load(_file(tmp_path, _one(_AWS | {"endpoint": "http://minio:9000", "allow_http": True})))
    load(_file(tmp_path, _one(_AWS | {"endpoint": "http://127.0.0.1:9000"})))


@pytest.mark.parametrize("wrong", [{"secret_key": _SECRET}, {"secret": _SECRET}, {"access_key": {"value": _SECRET}}])
def test_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(_file(tmp_path, _one(_AWS | wrong)))
    assert _SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secret_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_STORE_KEY_ID", "AKIAEXAMPLE")
    keys = {
        "access_key": {"environment": "STRONGROOM_STORE_KEY_ID"},
        "secret_key": {"file": str(_private(tmp_path / "key", f"{_SECRET}\n"))},
    }
    found = load(_file(tmp_path, _one(_AWS | keys)))
    (store,) = open_all(found).values()
    assert _SECRET not in repr(found) + repr(store) + repr(vars(store))


def test_secret_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    def message(reference: dict) -> str:
        keys = {"access_key": {"file": str(_private(tmp_path / "id", "AKIA"))}, "secret_key": reference}
        with pytest.raises(ConfigurationError) as caught:
            open_all(load(_file(tmp_path, _one(_AWS | keys))))
        return str(caught.value)

    assert "STRONGROOM_STORE_NONE" in message({"environment": "STRONGROOM_STORE_NONE"})
    assert "can't be read" in message({"file": str(tmp_path / "none")})
    assert "empty" in message({"file": str(_private(tmp_path / "empty", "\n"))})
    assert "not a file" in message({"file": "/dev/null"}) or "others" in message({"file": "/dev/null"})
    shown = _private(tmp_path / "shown", _SECRET)
    shown.chmod(0o644)
    assert "chmod 600" in message({"file": str(shown)})


@pytest.mark.parametrize("text", ["not json", "[]", "{}", f'{{"type": "service_account", "private_key": "{_SECRET}"}}'])
def test_wrong_credential_of_google_is_not_repeated(tmp_path: Path, text: str) -> None:
    credentials = {"file": str(_private(tmp_path / "account.json", text))}
    with pytest.raises(ConfigurationError, match=r"The store one: .*service account") as caught:
        open_all(load(_file(tmp_path, _one(_GOOGLE | {"credentials": credentials}))))
    assert _SECRET not in str(caught.value)


def test_wrong_credential_of_azure_is_not_repeated(tmp_path: Path) -> None:
    credential = {"file": str(_private(tmp_path / "account", _SECRET))}
    with pytest.raises(ConfigurationError, match=r"The store one: .*account key") as caught:
        open_all(load(_file(tmp_path, _one(_AZURE | {"credential": credential}))))
    assert _SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("store", "module", "extra"), [(_AWS, "s3", "aws"), (_GOOGLE, "gcs", "gcp"), (_AZURE, "azure", "azure")]
)
def test_sdk_is_needed_by_its_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: dict, module: str, extra: str
) -> None:
    package = importlib.import_module("services.models.stores")
    monkeypatch.delattr(package, module, raising=False)
    monkeypatch.delitem(sys.modules, f"services.models.stores.{module}", raising=False)
    for sdk in ("boto3", "google.cloud.storage", "google.cloud", "azure.storage.blob", "azure.core"):
        monkeypatch.setitem(sys.modules, sdk, None)
    open_all(load(_file(tmp_path, _one(_DISK))))
    with pytest.raises(ConfigurationError, match=rf"pip install 'strongroom\[{extra}\]'"):
        open_all(load(_file(tmp_path, _one(store))))


def test_credentials_of_stores_are_for_the_models_service_alone() -> None:
    assert _owner("STRONGROOM_STORES") == "models"
    assert _owner("STRONGROOM_STORE_SECRET_KEY") == "models"
    assert _owner("STRONGROOM_STORED_KEY") == "auth"


def test_configuration_is_compared_by_value() -> None:
    assert StoresConfiguration.only_local(Path("a")) == StoresConfiguration.only_local(Path("a"))
