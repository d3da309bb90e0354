"""Ledger and quotas over replicas: two auth services on one database, and a models service that reports to one."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from ulid import ULID

from services.models import bootstrap as models_bootstrap
from services.models.settings import ModelsSettings
from services.shared.channels import service_channel
from services.shared.tokens import ServiceIdentity
from strongroom.auth.v1 import api_keys_pb2, tokens_pb2, tokens_pb2_grpc, usage_pb2, usage_pb2_grpc
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2, weights_pb2_grpc
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation, reason_of
from tests.serving import serving

CALLER = "/strongroom.auth.v1.TokenService/GetCaller"
UPLOAD = "/strongroom.models.v1.WeightsService/CreateUpload"
LIST = "/strongroom.models.v1.ModelService/ListModels"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("usage")) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def replicas(installed: Installation, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Auth]]:
    """Two auth services on one database."""
    on = {"database_url": f"sqlite:///{tmp_path}/auth.db"}
    if request.param == "postgresql":
        on = {"database_url": request.getfixturevalue("postgresql_server").create_database()}
    with installed.auth(**on) as one, installed.auth(**on) as other:
        yield [one, other]


@dataclass
class Models:
    """A models service that reports to an auth service, seen by whoever has a key."""

    channel: grpc.Channel
    auth: Auth

    def upload(self, metadata: list[tuple[str, str]], version: str = "v1") -> str:
        request = weights_pb2.CreateUploadRequest(manager_id="default", model_name="m", version=version)
        return outcome(weights_pb2_grpc.WeightsServiceStub(self.channel).CreateUpload, request, metadata)

    def list(self, metadata: list[tuple[str, str]]) -> str:
        request = models_pb2.ListModelsRequest(manager_id="default")
        return outcome(models_pb2_grpc.ModelServiceStub(self.channel).ListModels, request, metadata)


@contextmanager
def models_of(installed: Installation, auth: Auth, folder: Path) -> Iterator[Models]:
    settings = ModelsSettings(
        data_dir=folder,
        database_url=f"sqlite:///{folder}/models.db",
        identity_dir=installed.folder / "keys",
        secrets_addr=installed.secrets_address,
        auth_addr=auth.address,
    )
    with serving(models_bootstrap.build, settings) as address, grpc.insecure_channel(address) as channel:
        yield Models(channel, auth)


def outcome(method: Any, request: Any, metadata: list[tuple[str, str]]) -> str:
    """The reason of a failure, or OK."""
    try:
        method(request, metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return reason_of(error)
    return "OK"


def limited(auth: Auth, requests: int, usage_class: str = "other") -> api_keys_pb2.ApiKey:
    quota = api_keys_pb2.Quota(usage_class=usage_class, requests=requests, per="day")
    return auth.create(permission_set="full_access", quotas=[quota])


def ask(auth: Auth, metadata: list[tuple[str, str]]) -> str:
    return outcome(tokens_pb2_grpc.TokenServiceStub(auth.channel).GetCaller, tokens_pb2.GetCallerRequest(), metadata)


def lines(auth: Auth, principal: str) -> dict[str, usage_pb2.Use]:
    """A principal's use by class."""
    metadata = auth.identity(BOOTSTRAP_KEY, "/strongroom.auth.v1.UsageService/ListUsage")
    stub = usage_pb2_grpc.UsageServiceStub(auth.channel)
    answer = stub.ListUsage(usage_pb2.ListUsageRequest(principal=principal), metadata=metadata, timeout=5)
    return {use.usage_class: use for use in answer.usage}


def eventually(look: Any, wanted: Any, seconds: float = 10) -> None:
    """Returns once `look()` is what is wanted."""
    deadline = time.monotonic() + seconds
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == wanted


@pytest.mark.row("S1.9")
@pytest.mark.parametrize(("requests", "refused_early"), [(20, 0), (200, 3)], ids=["small", "large"])
def test_a_quota_holds_over_replicas_and_the_ledger_is_exact(
    replicas: list[Auth], requests: int, refused_early: int
) -> None:
    key = limited(replicas[0], requests)
    tokens = [auth.identity(key.key, CALLER) for auth in replicas]
    calls = requests + 30
    with ThreadPoolExecutor(12) as threads:
        outcomes = Counter(threads.map(lambda n: ask(replicas[n % 2], tokens[n % 2]), range(calls)))
    assert requests - refused_early <= outcomes["OK"] <= requests
    assert outcomes["OK"] + outcomes["QUOTA_EXHAUSTED"] == calls
    name = f"key:{key.id}"
    counted = (float(calls), float(outcomes["QUOTA_EXHAUSTED"]))
    eventually(lambda: [(use.requests, use.errors) for use in lines(replicas[1], name).values()], [counted])
    eventually(lambda: replicas[0].get(key.id).usage_count, calls)


@pytest.mark.row("S1.9")
def test_a_key_escapes_its_quota_by_no_key_that_it_makes(replicas: list[Auth]) -> None:
    key = limited(replicas[0], 6)
    children = [replicas[0].create(key.key, permission_set="read_only") for _ in range(2)]
    # Two of the six it has used to make them.
    keys = [key, *children]
    tokens = [auth.identity(each.key, CALLER) for auth in replicas for each in keys]
    outcomes = Counter(ask(replicas[n % 6 // 3], tokens[n % 6]) for n in range(30))
    assert outcomes == {"OK": 4, "QUOTA_EXHAUSTED": 26}


def test_a_repeated_report_counts_once_at_whichever_replica(replicas: list[Auth], installed: Installation) -> None:
    key = replicas[0].create(permission_set="read_only")
    at, name = Timestamp(), f"key:{key.id}"
    at.GetCurrentTime()
    use = usage_pb2.Use(principal=name, name="n", day="2026-11-21", usage_class="train", requests=3, job_seconds=1.25)
    use.cost_estimate = 42.5
    use.day = at.ToDatetime().date().isoformat()
    last = usage_pb2.LastUse(credential_id=replicas[0].credential(key.key), at=at, requests=3)
    request = usage_pb2.RecordUseRequest(batch_id=str(ULID()), usage=[use], last_uses=[last])
    identity = ServiceIdentity.load("models", installed.folder / "keys")
    for auth in replicas * 2:
        with service_channel(auth.address, "auth", identity) as channel:
            usage_pb2_grpc.UsageServiceStub(channel).RecordUse(request, timeout=5)
    found = lines(replicas[0], name)["train"]
    assert (found.requests, found.job_seconds, found.cost_estimate) == (3, 1.25, 42.5)
    shown = replicas[0].get(key.id)
    assert (shown.usage_count, shown.last_used_at, shown.versions[0].last_used_at) == (3, at, at)


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": -1},
        {"requests": float("nan")},
        {"bytes_sent": float("inf")},
        {"job_seconds": -0.001},
        {"cost_estimate": -1},
    ],
    ids=str,
)
def test_use_that_cannot_be_is_refused_for_good(replicas: list[Auth], installed: Installation, wrong: dict) -> None:
    use = usage_pb2.Use(principal="key:x", name="n", day="2026-11-21", usage_class="train", **wrong)
    identity = ServiceIdentity.load("models", installed.folder / "keys")
    with service_channel(replicas[0].address, "auth", identity) as channel:
        stub = usage_pb2_grpc.UsageServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.RecordUse(usage_pb2.RecordUseRequest(batch_id=str(ULID()), usage=[use]), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_nobody_but_services_adds_use_or_takes_quotas(replicas: list[Auth]) -> None:
    stub = usage_pb2_grpc.UsageServiceStub(replicas[0].channel)
    record = usage_pb2.RecordUseRequest(batch_id=str(ULID()))
    reserve = usage_pb2.ReserveQuotaRequest(principal="key:x", usage_class="train", requests=1, per="day", wanted=1)
    for method, request in ((stub.RecordUse, record), (stub.ReserveQuota, reserve)):
        path = f"/strongroom.auth.v1.UsageService/{type(request).DESCRIPTOR.name.removesuffix('Request')}"
        assert outcome(method, request, replicas[0].identity(BOOTSTRAP_KEY, path)) == "SERVICE_ONLY"
        assert outcome(method, request, []) == "CREDENTIAL_MISSING"


@pytest.mark.row("S2.5")
@pytest.mark.row("B7")
def test_use_by_a_token_that_a_key_was_exchanged_for_counts_as_the_keys(
    installed: Installation, replicas: list[Auth], tmp_path: Path
) -> None:
    auth = replicas[0]
    key = auth.create(permission_set="training_pipeline")
    exchange = tokens_pb2.CreateTokenRequest()
    token = auth.call(key.key, "TokenService", "CreateToken", exchange).access_token
    with models_of(installed, auth, tmp_path) as models:
        for _ in range(3):
            assert models.list([("authorization", f"Bearer {token}")]) == "OK"
        assert models.upload([("authorization", f"Bearer {token}")]) == "OK"
        eventually(lambda: auth.get(key.id).usage_count, 5)
    used = lines(auth, f"key:{key.id}")
    assert {usage_class: use.requests for usage_class, use in used.items()} == {"other": 4, "upload": 1}
    assert used["upload"].bytes_received > 0 < used["other"].bytes_sent


def test_a_clean_stop_of_a_service_reports_its_last_second(
    installed: Installation, replicas: list[Auth], tmp_path: Path
) -> None:
    auth = replicas[0]
    key = auth.create(permission_set="read_only")
    with models_of(installed, auth, tmp_path) as models:
        metadata = auth.identity(key.key, LIST)
        assert [models.list(metadata) for _ in range(40)] == ["OK"] * 40
    assert lines(replicas[1], f"key:{key.id}")["other"].requests == 40


@pytest.mark.row("S1.9")
def test_while_auth_is_away_reads_pass_and_uploads_wait(installed: Installation, tmp_path: Path) -> None:
    with ExitStack() as running:
        auth_runs = ExitStack()
        auth = auth_runs.enter_context(installed.auth("away"))
        key, reader = limited(auth, 2, "upload"), limited(auth, 5)
        models = running.enter_context(models_of(installed, auth, tmp_path))
        uploads, reads = auth.identity(key.key, UPLOAD), auth.identity(reader.key, LIST)
        assert (models.upload(uploads), models.list(reads)) == ("OK", "OK")
        with auth_runs:
            pass
        assert models.upload(uploads, "v2") == "DEPENDENCY_UNAVAILABLE"
        assert [models.list(reads) for _ in range(3)] == ["OK"] * 3
        again = running.enter_context(installed.auth("away", auth_listen=auth.address))
        eventually(lambda: models.upload(uploads, "v2"), "OK")
        assert models.upload(uploads, "v3") == "QUOTA_EXHAUSTED"
        # The three that passed are taken from the quota, of which one was left.
        eventually(lambda: [models.list(reads) for _ in range(2)][-1], "QUOTA_EXHAUSTED")
        eventually(lambda: sum(use.requests for use in lines(again, f"key:{key.id}").values()) >= 4, True)


@pytest.mark.row("S1.11")
def test_static_keys_have_lines_too(installed: Installation) -> None:
    static = "static-key-for-tests-0123456789"
    with installed.auth("static", api_keys=f"scorer:read_only:{static}") as auth:
        metadata = auth.identity(static, CALLER)
        assert [ask(auth, metadata) for _ in range(3)] == ["OK"] * 3
        caller = tokens_pb2_grpc.TokenServiceStub(auth.channel).GetCaller(
            tokens_pb2.GetCallerRequest(), metadata=metadata
        )
        eventually(lambda: [use.requests for use in lines(auth, caller.principal).values()], [4])
