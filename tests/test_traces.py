"""Traces: one from the gateway through every service that a request needs; nothing secret in them; off by default."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from services.shared import traces
from strongroom import Client
from strongroom.local import gateway
from strongroom.local.contract import Contract
from strongroom.local.errors import StartError
from strongroom.local.policy import Policy
from strongroom.local.telemetry import Telemetry
from strongroom.local.tls import GatewayTls, Sources
from tests.collector import Collector, Seen, running
from tests.stack import RunningStack, Stack

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Strongroom that sends its traces to the collector."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=of%20the%20collector",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with RunningStack(tmp_path_factory.mktemp("traces") / "data", **variables) as stack:
        yield stack


def get(stack: Stack, path: str, **headers: str) -> int:
    answer = requests.get(f"{stack.url}{path}", headers={"X-API-Key": stack.admin_key} | headers, timeout=10)
    return answer.status_code


def in_trace(spans: list[Seen], trace: str) -> list[Seen]:
    return [one for one in spans if one.trace == trace]


def test_one_trace_leads_from_the_caller_through_the_gateway_to_every_service(
    collector: Collector, traced: Stack
) -> None:
    answer = requests.post(
        f"{traced.url}/api/managers",
        json={"model_path": "traced", "task_type": "regression"},
        headers={"X-API-Key": traced.admin_key, "traceparent": f"00-{TRACE}-{PARENT}-01"},
        timeout=10,
    )
    request_id = answer.headers["x-request-id"]

    def whole(spans: list[Seen]) -> bool:
        """A span is told when it ends, by each part in its own time: a parent may come last."""
        found = in_trace(spans, TRACE)
        services = {one.service for one in found}
        known = {one.span.span_id for one in found} | {bytes.fromhex(PARENT)}
        parents = {one.span.parent_span_id for one in found}
        return services >= {"strongroom-gateway", "strongroom-models", "strongroom-secrets"} and parents <= known

    spans = in_trace(collector.wait(whole), TRACE)
    known = {one.span.span_id.hex() for one in spans} | {PARENT}
    assert {one.span.parent_span_id.hex() for one in spans} <= known
    served = next(one for one in spans if one.service == "strongroom-models" and "CreateManager" in one.span.name)
    assert served.attributes["rpc.method"] == "CreateManager"
    assert served.attributes["strongroom.request_id"] == request_id
    assert served.attributes["strongroom.key_prefix"] == traced.admin_key[3:11]
    wrapped = [one for one in spans if one.service == "strongroom-secrets"]
    asked = {one.span.span_id: one for one in spans if one.service == "strongroom-models"}
    assert all(one.span.parent_span_id in asked for one in wrapped)
    logs = (traced.data_dir / "logs" / "models.log").read_text().splitlines()
    line = next(json.loads(line) for line in logs if request_id in line and '"request"' in line)
    assert line["trace_id"] == TRACE
    assert line["span_id"] == served.span.span_id.hex()


def test_spans_hold_no_credential_no_value_and_no_query(collector: Collector, traced: Stack) -> None:
    with Client(traced.url, api_key=traced.admin_key) as client:
        client.secrets.create("traces/db", {"password": "correct-horse-battery"})
        assert client.secrets.get("traces/db").data["password"] == "correct-horse-battery"
    stranger = "sr_strangerskeythatdoesnotexist"
    assert get(traced, f"/api/v1/caller?api_key={stranger}") == 400
    assert get(traced, "/api/v1/secrets/traces/db?access_code=tell-nobody") in (200, 400)
    last = "0af7651916cd43dd8448eb211c803199"
    assert get(traced, "/api/v1/secrets/traces/db", traceparent=f"00-{last}-{PARENT}-01") == 200
    collector.wait(lambda spans: len({one.service for one in in_trace(spans, last)}) >= 2)
    sent = b"".join(collector.bodies)
    for secret in (traced.admin_key, stranger, "correct-horse-battery", "tell-nobody", "eyJ"):
        assert secret.encode() not in sent, secret
    assert all(headers["x-collector-key"] == "of the collector" for headers in collector.headers)


def test_a_refused_call_is_a_span_with_its_code_and_without_the_text(collector: Collector, traced: Stack) -> None:
    trace = "0af7651916cd43dd8448eb211c80319a"
    assert get(traced, "/api/v1/secrets/no/such/secret", traceparent=f"00-{trace}-{PARENT}-01") == 404
    spans = collector.wait(lambda all_: any(one.service == "strongroom-secrets" for one in in_trace(all_, trace)))
    refused = next(one for one in in_trace(spans, trace) if one.service == "strongroom-secrets")
    assert refused.attributes["rpc.grpc.status_code"] == 5
    assert not refused.span.events
    assert not refused.span.status.message


def test_what_the_caller_does_not_want_sampled_makes_no_span(collector: Collector, traced: Stack) -> None:
    unwanted, wanted = "0af7651916cd43dd8448eb211c80319b", "0af7651916cd43dd8448eb211c80319d"
    assert get(traced, "/api/v1/caller", traceparent=f"00-{unwanted}-{PARENT}-00") == 200
    assert get(traced, "/api/v1/caller", traceparent=f"00-{wanted}-{PARENT}-01") == 200
    spans = collector.wait(lambda all_: bool(in_trace(all_, wanted)))
    assert not in_trace(spans, unwanted)


def test_without_an_endpoint_nothing_of_opentelemetry_is_even_imported() -> None:
    program = (
        "import sys; from services.shared import service, traces; "
        "assert traces.Tracing.configured('auth', {}) is None; "
        "with_ = traces.calling('/a/b'); with_.__enter__(); with_.__exit__(None, None, None); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_protocol_that_there_is_not_is_refused_at_the_start() -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"}
    with pytest.raises(traces.TracingUnavailable, match="http/protobuf or grpc"):
        traces.Tracing.configured("auth", variables)
    with pytest.raises(StartError, match="http/protobuf or grpc"):
        Telemetry.read(variables)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a-secret-without-its-name"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_a_setting_that_cannot_be_is_told_at_the_start_without_its_value(name: str, value: str) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_SAMPLER": "traceidratio"}
    with pytest.raises(StartError) as caught:
        Telemetry.read(variables | {name: value})
    assert value not in str(caught.value) or name == "OTEL_TRACES_SAMPLER_ARG"


@pytest.mark.parametrize("endpoint", ["http://collector:4318", "https://collector.example.com:4317", "collector"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_envoy_takes_every_way_to_a_collector(tmp_path: Path, endpoint: str, protocol: str) -> None:
    telemetry = Telemetry.read(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20secret",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
        }
    )
    assert telemetry is not None
    assert telemetry.sampled == 25
    assert "secret" not in repr(telemetry)
    addresses = {"auth": "127.0.0.1:1", "models": "127.0.0.1:2", "secrets": "127.0.0.1:3"}
    sockets = tmp_path / "admin.sock", tmp_path / "jwks.sock"
    policy, tls = Policy((), None), GatewayTls(Sources(), tmp_path)
    settings = gateway.GatewaySettings("127.0.0.1", 20000, addresses, *sockets, policy, tls, telemetry=telemetry)
    config = tmp_path / "envoy.yaml"
    config.write_text(gateway.render(settings, Contract.load(gateway.DESCRIPTOR_SET)))
    done = subprocess.run([*gateway.command(config), "--mode", "validate"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
