"""Replicas follow the primary: at once, after a time down, after a restart; what drifted is found and repaired."""

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from services.secrets.providers.provider import SecretProvider
from services.shared.errors import NotFound
from services.shared.identity import Grant, Principal
from tests.audit_trails import eventually
from tests.openbao import OpenBaoServer
from tests.provider_installation import Served, WithProviders
from tests.provider_kinds import fields, opened, private
from tests.secret_manager import SecretManagerServer
from tests.secrets_installation import PLANTED, refusal

pytestmark = pytest.mark.row("S4.2")


class Setting:
    """An installation with OpenBao and Google as replicas and Azure and AWS by name, and all of them past it."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        kinds = {name: fields(name, request, folder) for name in ("openbao", "gcp", "azure", "aws")}
        replicas, named = {n: kinds[n] for n in ("openbao", "gcp")}, {n: kinds[n] for n in ("azure", "aws")}
        self.there: dict[str, SecretProvider] = {name: opened(given) for name, given in kinds.items()}
        self.installation = WithProviders(folder, replicas, named)
        self.google: SecretManagerServer = request.getfixturevalue("secret_manager")

    def value(self, provider: str, name: str) -> object:
        """What a provider has; None if nothing."""
        try:
            return self.there[provider].get(name).data
        except NotFound:
            return None


@pytest.fixture(scope="module")
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(request, tmp_path_factory.mktemp("providers"))


@pytest.fixture(scope="module")
def served(setting: Setting) -> Iterator[Served]:
    with setting.installation.served() as served:
        yield served


@pytest.fixture
def name() -> str:
    return f"prod/db-{secrets.token_hex(4)}"


@pytest.fixture
def google_down(setting: Setting) -> Iterator[SecretManagerServer]:
    setting.google.manager.down = True
    try:
        yield setting.google
    finally:
        setting.google.manager.down = False


def _follows(setting: Setting, name: str, wanted: object) -> None:
    for provider in ("openbao", "gcp"):
        eventually(lambda provider=provider: setting.value(provider, name) == wanted)


def test_every_change_of_a_secret_follows(setting: Setting, served: Served, name: str) -> None:
    call = served.secrets
    call("CreateSecret", name=name, data={"n": 1})
    _follows(setting, name, {"n": 1})
    call("UpdateSecret", name=name, data={"n": 2})
    _follows(setting, name, {"n": 2})
    pending = call("StageSecretVersion", name=name, data={"n": 3}).version
    call("PromoteSecretVersion", name=name, version=pending)
    _follows(setting, name, {"n": 3})
    call("DeleteSecret", name=name)
    _follows(setting, name, None)
    call("UndeleteSecret", name=name)
    _follows(setting, name, {"n": 3})
    call("DestroySecret", name=name)
    _follows(setting, name, None)
    assert setting.value("azure", name) is None


def test_pending_version_stays_here(setting: Setting, served: Served, name: str) -> None:
    served.secrets("CreateSecret", name=name, data={"n": 1})
    served.secrets("StageSecretVersion", name=name, data={"password": PLANTED})
    served.settled("openbao")
    assert [value.data for value in _versions(setting, "openbao", name)] == [{"n": 1}]


def _versions(setting: Setting, provider: str, name: str) -> list[object]:
    there = setting.there[provider]
    return [there.get(name, version.revision) for version in there.versions(name)]


def test_what_a_replica_missed_is_lag_and_follows_when_it_is_back(
    setting: Setting, served: Served, name: str, google_down: SecretManagerServer
) -> None:
    served.secrets("CreateSecret", name=name, data={"password": PLANTED})
    eventually(lambda: setting.value("openbao", name) == {"password": PLANTED})
    behind = served.once("gcp", lambda one: one.pending_secrets and one.error)
    assert behind.lag_seconds > 0
    assert PLANTED not in str(behind)
    google_down.manager.down = False
    eventually(lambda: setting.value("gcp", name) == {"password": PLANTED})
    caught_up = served.settled("gcp")
    assert caught_up.lag_seconds == 0
    assert not caught_up.error


def test_lag_outlives_a_restart_and_holds_no_value(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, google_down: SecretManagerServer
) -> None:
    google_down.manager.down = False
    given = fields("gcp", request, tmp_path)
    installation = WithProviders(tmp_path, {"gcp": given}, {})
    with installation.served() as served:
        served.once("gcp", lambda one: one.healthy and not one.comparing and one.HasField("compared_at"))
        google_down.manager.down = True
        served.secrets("CreateSecret", name=name, data={"password": PLANTED})
        served.once("gcp", lambda one: bool(one.pending_secrets))
    assert not [path for path, content in installation.files() if PLANTED.encode() in content]
    google_down.manager.down = False
    with installation.served():
        eventually(lambda: name in set(opened(given).list()))
    assert opened(given).get(name).data == {"password": PLANTED}


def test_replica_follows_on_postgresql(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, postgresql_url: str
) -> None:
    given = fields("openbao", request, tmp_path)
    with WithProviders(tmp_path, {"bao": given}, {}, postgresql_url).served() as served:
        served.secrets("CreateSecret", name=name, data={"n": 1})
        served.secrets("UpdateSecret", name=name, data={"n": 2})
        eventually(lambda: name in set(opened(given).list()) and opened(given).get(name).data == {"n": 2})
        served.settled("bao")
        opened(given).put(name, {"n": 3})
        served("SyncProviders", compare_only=True)
        served.settled("bao")
        assert served.drift() == {(name, "different")}
        served("SyncProviders")
        served.settled("bao")
        assert not served.drift()
    assert opened(given).get(name).data == {"n": 2}


def test_replica_that_cannot_be_compared_says_why(
    request: pytest.FixtureRequest, tmp_path: Path, openbao_server: OpenBaoServer
) -> None:
    mount = openbao_server.mount()
    rules = {"path": {f"{mount}/metadata/*": {"capabilities": ["list"]}}}
    openbao_server.root.sys.create_or_update_policy(mount, json.dumps(rules))
    token = openbao_server.root.auth.token.create(policies=[mount], no_default_policy=True)["auth"]["client_token"]
    sign_in = {"method": "token", "token": private(tmp_path, token)}
    given = {"kind": "openbao", "endpoint": openbao_server.url, "mount": mount, "sign_in": sign_in}
    openbao_server.root.secrets.kv.v2.create_or_update_secret("one", {"n": 1}, mount_point=mount)
    with WithProviders(tmp_path, {"bao": given}, {}).served() as served:
        served.secrets("CreateSecret", name="one", data={"n": 2})
        told = served.once("bao", lambda one: "permission denied" in one.error)
        assert told.healthy
        assert token not in str(told)


def test_new_replica_is_filled(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    alone = WithProviders(tmp_path, {}, {})
    with alone.served() as served:
        for n in range(3):
            served.secrets("CreateSecret", name=f"old/{n}", data={"n": n})
    given = fields("openbao", request, tmp_path)
    opened(given).put("old/1", {"n": "somebody's own"})
    opened(given).put("other", {"n": "somebody's own"})
    alone.configure({"bao": given}, {})
    with alone.served() as served:
        served.once("bao", lambda one: one.HasField("compared_at") and not one.pending_secrets)
        assert served.drift() == {("old/1", "different"), ("other", "unexpected")}
    assert opened(given).get("old/2").data == {"n": 2}
    assert opened(given).get("old/1").data == {"n": "somebody's own"}


def test_drift_is_found_and_repaired(setting: Setting, served: Served) -> None:
    folder = f"drift-{secrets.token_hex(4)}"
    for each in ("same", "changed", "lost", "typed"):
        served.secrets("CreateSecret", name=f"{folder}/{each}", data={"n": 1})
    served.settled("openbao")
    there = setting.there["openbao"]
    there.put(f"{folder}/changed", {"n": 2})
    there.put(f"{folder}/typed", {"n": True})
    there.delete(f"{folder}/lost")
    there.put(f"{folder}/extra", {"n": 1})

    def compared(*, compare_only: bool) -> set[tuple[str, str]]:
        served("SyncProviders", providers=["openbao"], compare_only=compare_only)
        assert served.settled("openbao").HasField("compared_at")
        return {(name.removeprefix(f"{folder}/"), kind) for name, kind in served.drift() if name.startswith(folder)}

    kinds = {("changed", "different"), ("typed", "different"), ("lost", "missing"), ("extra", "unexpected")}
    assert compared(compare_only=True) == kinds
    assert served.show("openbao").drifted_secrets >= 4
    assert setting.value("openbao", f"{folder}/changed") == {"n": 2}
    assert compared(compare_only=False) == {("extra", "unexpected")}
    for each in ("same", "changed", "lost", "typed"):
        assert setting.value("openbao", f"{folder}/{each}") == {"n": 1}
    assert setting.value("openbao", f"{folder}/extra") == {"n": 1}


def test_drift_shows_names_to_who_may_list_them(setting: Setting, served: Served) -> None:
    setting.there["openbao"].put("hidden/one", {"n": 1})
    served("SyncProviders", providers=["openbao"], compare_only=True)
    served.settled("openbao")
    assert ("hidden/one", "unexpected") in served.drift()
    operator = _holder("system.maintain", "system/**", "secrets.list", "secrets/prod/**")
    assert all(each.name.startswith("prod/") for each in served("ListDrift", operator).drift)
    assert (
        refusal(lambda: served("ListDrift", _holder("system.maintain", "**")))[0] is grpc.StatusCode.PERMISSION_DENIED
    )
    assert refusal(lambda: served("ListProviders", _holder("secrets.*", "**")))[0] is grpc.StatusCode.PERMISSION_DENIED


def _holder(*pairs: str) -> Principal:
    """May do this permission on that resource, and so on."""
    grants = [Grant("allow", (what,), (where,)) for what, where in zip(pairs[::2], pairs[1::2], strict=True)]
    return Principal("key:holder", "holder", "holder", "holder", tuple(grants))


def test_what_is_not_a_replica_is_told(served: Served) -> None:
    for method in ("SyncProviders", "ListDrift"):
        refused = refusal(lambda method=method: served(method, providers=["azure"]))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_UNKNOWN")
    assert [(one.name, one.kind, one.role) for one in served("ListProviders").providers] == [
        ("embedded", "embedded", "primary"),
        ("openbao", "openbao", "replica"),
        ("gcp", "gcp", "replica"),
        ("azure", "azure", "named"),
        ("aws", "aws", "named"),
    ]


@pytest.mark.row("S4.1")
@pytest.mark.parametrize("provider", ["openbao", "gcp", "azure", "aws"])
def test_named_provider_alone_is_written_read_listed_and_deleted(
    setting: Setting, served: Served, name: str, provider: str
) -> None:
    call = served.secrets
    first = call("CreateSecret", name=name, provider=provider, data={"n": 1, "key": {"$base64": "AAEC"}})
    assert setting.value(provider, name) == {"n": 1, "key": {"$base64": "AAEC"}}
    found = call("GetSecret", name=name, provider=provider)
    assert (found.provider, found.revision) == (provider, first.revision)
    call("UpdateSecret", name=name, provider=provider, data={"n": 2}, expected_revision=first.revision)
    assert call.value(name, provider=provider) == {"n": 2}
    assert call.value(name, provider=provider, revision=first.revision)["n"] == 1
    assert len(call("ListSecretVersions", name=name, provider=provider).versions) == 2
    assert call.names(provider=provider, prefix=name) == [name]
    assert call.refusal("GetSecret", name=name) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    again = {"name": name, "provider": provider, "data": {"n": 3}}
    assert call.refusal("CreateSecret", **again) == (grpc.StatusCode.ALREADY_EXISTS, "SECRET_EXISTS")
    stale = call.refusal("UpdateSecret", **again, expected_revision=first.revision)
    assert stale == (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")
    call("DeleteSecret", name=name, provider=provider)
    assert call.refusal("GetSecret", name=name, provider=provider)[1] == "SECRET_NOT_FOUND"
    assert call.refusal("UpdateSecret", **again)[1] == "SECRET_NOT_FOUND"
    assert call.refusal("DeleteSecret", name=name, provider=provider)[1] == "SECRET_NOT_FOUND"


@pytest.mark.row("S4.1")
def test_named_provider_needs_its_own_permission(served: Served, name: str) -> None:
    asked = {"name": name, "provider": "azure"}
    denied = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    everything_here = _holder("secrets.*", "**")
    other = _holder("secrets.*", "**", "providers.use", "providers/aws")
    provider_alone = _holder("providers.use", "**")
    both = _holder("secrets.*", "secrets/prod/**", "providers.use", "providers/azure")
    for method, more in {
        "CreateSecret": {"data": {"n": 1}},
        "UpdateSecret": {"data": {"n": 1}},
        "GetSecret": {},
        "ListSecretVersions": {},
        "DeleteSecret": {},
    }.items():
        for who in (everything_here, other, provider_alone):
            assert served.secrets.refusal(method, who, **asked, **more) == denied
    for who in (everything_here, other, provider_alone):
        assert served.secrets.refusal("ListSecrets", who, provider="azure") == denied
    served.secrets("CreateSecret", both, **asked, data={"n": 1})
    served.secrets("CreateSecret", name=f"test/{name}", provider="azure", data={"n": 1})
    assert all(found.startswith("prod/") for found in served.secrets.names(both, provider="azure"))
    assert served.secrets.refusal("GetSecret", both, name=f"test/{name}", provider="azure") == denied


@pytest.mark.row("S4.1")
def test_fields_that_are_of_the_primary_alone_are_refused(served: Served, name: str) -> None:
    refused = (grpc.StatusCode.INVALID_ARGUMENT, "NOT_OF_PROVIDERS")
    written = {"name": name, "provider": "aws", "data": {"n": 1}}
    assert served.secrets.refusal("CreateSecret", **written, labels={"a": "b"}) == refused
    assert served.secrets.refusal("GetSecret", name=name, provider="aws", stage="pending") == refused
    assert served.secrets.refusal("ListSecrets", provider="aws", query="a") == refused
    assert served.secrets.refusal("DeleteSecret", name=name, provider="aws", versions=[1]) == refused
    unknown = served.secrets.refusal("GetSecret", name=name, provider="nowhere")
    assert unknown == (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_UNKNOWN")
    unreadable = served.secrets.refusal("CreateSecret", **written | {"data": {"a": {"$base64": "?"}}})
    assert unreadable == (grpc.StatusCode.INVALID_ARGUMENT, "BINARY_INVALID")


@pytest.mark.row("S4.1")
@pytest.mark.parametrize("provider", ["gcp", "azure", "aws"])
def test_of_writers_that_expect_the_same_version_one_wins(
    setting: Setting, served: Served, name: str, provider: str
) -> None:
    first = served.secrets("CreateSecret", name=name, provider=provider, data={"n": 0})

    def write(n: int) -> bool:
        try:
            served.secrets(
                "UpdateSecret", name=name, provider=provider, data={"n": n}, expected_revision=first.revision
            )
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.ABORTED  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(6) as writers:
        won = [n for n, done in zip(range(1, 7), writers.map(write, range(1, 7)), strict=True) if done]
    assert len(won) == 1
    assert setting.value(provider, name) == {"n": won[0]}


@pytest.mark.row("S4.1")
def test_provider_that_is_down_is_told_without_a_value(
    served: Served, name: str, google_down: SecretManagerServer
) -> None:
    down = served.secrets.refusal("CreateSecret", name=name, provider="gcp", data={"password": PLANTED})
    assert down == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
