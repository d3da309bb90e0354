"""The gateway's configuration, made from the descriptor set. `envoy --mode validate` is the judge of its syntax."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from services.shared.settings import ServiceSettings
from strongroom.local import gateway
from strongroom.local.clusters import clusters
from strongroom.local.contract import SERVICES, Contract, lua_pattern, regex
from strongroom.local.policy import Policy
from strongroom.local.routes import routes
from strongroom.local.tls import GatewayTls, Sources
from strongroom.rates import Rate

ADDRESSES = {"auth": "127.0.0.1:20001", "models": "models.internal:20002", "secrets": "[::1]:20003,[::1]:20004"}

POLICY = Policy(("https://app.example.com",), Rate(100, 60))


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract.load(gateway.DESCRIPTOR_SET)


def render(folder: Path, contract: Contract, host: str = "127.0.0.1", policy: Policy = POLICY) -> str:
    sockets = folder / "admin.sock", folder / "jwks.sock"
    return gateway.render(
        gateway.GatewaySettings(host, 20000, ADDRESSES, *sockets, policy, GatewayTls(Sources(), folder)), contract
    )


def test_envoy_accepts_the_configuration(tmp_path: Path, contract: Contract) -> None:
    config = tmp_path / "envoy.yaml"
    config.write_text(render(tmp_path, contract))
    done = subprocess.run([*gateway.command(config), "--mode", "validate"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_values_cannot_break_out_of_their_place(tmp_path: Path, contract: Contract) -> None:
    host = '"}}, evil: {'
    assert json.dumps(host) in render(tmp_path, contract, host)


def test_limits_that_take_long_to_reach_are_those_of_the_page(tmp_path: Path, contract: Contract) -> None:
    """The others in that table have tests at the gateway itself: test_tls_gateway.py, test_edge_smuggling.py."""
    config = yaml.safe_load(render(tmp_path, contract))
    public = next(one for one in config["static_resources"]["listeners"] if one["name"] == "public")
    chain = public["filter_chains"][0]
    manager = chain["filters"][0]["typed_config"]
    limits = [monitor["typed_config"] for monitor in config["overload_manager"]["resource_monitors"]]
    assert 10_000 in [limit.get("max_active_downstream_connections") for limit in limits]
    assert public["listener_filters_timeout"] == "5s"
    assert chain["transport_socket_connect_timeout"] == manager["request_headers_timeout"] == "10s"
    assert manager["stream_idle_timeout"] == "600s"
    assert manager["common_http_protocol_options"]["idle_timeout"] == "3600s"
    page = (Path(__file__).resolve().parent.parent / "docs" / "tls.md").read_text()
    for limit in ("10000 connections", "5 s until a connection", "10 s for a request's headers", "600 s in which"):
        assert f"| {limit}" in page or f"; {limit}" in page, limit
    assert "| an hour without a request on a connection |" in page


def test_methods_between_services_are_not_routed(contract: Contract) -> None:
    paths = {method.path for method in contract.methods}
    assert "/strongroom.auth.v1.ApiKeyService/ListApiKeys" in paths
    assert "/strongroom.auth.v1.TokenService/ListRevocations" not in paths
    assert not any("KeyService/Unwrap" in path or "Authorization" in path for path in paths)


def test_authorization_is_skipped_for_public_methods_alone(contract: Contract) -> None:
    found = {route["match"].get("path"): route for route in routes(contract, POLICY.rate)}
    for method in contract.methods:
        filters = found[method.path]["typed_per_filter_config"]
        assert filters["envoy.filters.http.ext_authz"].get("disabled", False) == method.public
    public = {method.name for method in contract.methods if method.public}
    asked = {"GetInfo", "GetHealth", "GetRegistryHealth"}
    statics = asked | {"GetKeySet", "GetDiscovery", "GetDocs", "GetRedoc", "GetOpenApi", "GetAsset"}
    assert public == statics | {"SignIn", "RefreshSession", "SignOut", "SignInWithAws"}
    assert statics == {method.name for method in contract.methods if method.static}


def test_streams_have_no_timeout_and_what_clients_stream_is_not_sent_again(contract: Contract) -> None:
    found = {route["match"].get("path"): route.get("route") for route in routes(contract, POLICY.rate)}
    upload = found["/strongroom.models.v1.FileService/PutFile"]
    assert upload["timeout"] == "0s"
    assert "reset," not in upload["retry_policy"]["retry_on"]
    assert found["/strongroom.models.v1.FileService/GetFile"]["timeout"] == "0s"
    assert found["/strongroom.models.v1.ModelService/GetVersion"]["timeout"] == "600s"


def test_what_a_replica_may_have_begun_is_asked_again_only_where_that_changes_nothing(contract: Contract) -> None:
    again = {method.name for method in contract.methods if method.idempotent}
    assert {"GetSecret", "ListModels", "HasChunks", "CommitUpload", "RevokeApiKey", "CreateToken"} <= again
    assert not again & {"CreateSecret", "UpdateSecret", "CreateApiKey", "RotateApiKey", "SignIn", "PutFile"}
    found = {route["match"].get("path"): route.get("route") for route in routes(contract, POLICY.rate)}
    for method in contract.methods:
        asked_on = found[method.path]["retry_policy"]["retry_on"].split(",")
        assert {"connect-failure", "refused-stream"} < set(asked_on)
        assert ("reset" in asked_on) == ("unavailable" in asked_on)
        assert ("reset" in asked_on) == (method.idempotent and not method.client_streaming), method.path


def test_a_lone_service_is_not_cut_off_and_of_several_those_that_fail_are(tmp_path: Path) -> None:
    tls = GatewayTls(Sources(), tmp_path)
    found = clusters(ADDRESSES, Path("jwks.sock"), Path("admin.sock"), None, tls)
    made = {cluster["name"]: cluster for cluster in found}
    assert "outlier_detection" not in made["auth"]
    assert "connection_keepalive" not in str(made["auth"])
    for several in ("models", "secrets"):  # a name may stand for more than one
        assert made[several]["outlier_detection"]["max_ejection_percent"] == 50
        assert "connection_keepalive" in str(made[several])
    [group] = made["secrets"]["load_assignment"]["endpoints"]
    places = [place["endpoint"]["address"]["socket_address"] for place in group["lb_endpoints"]]
    assert [place["port_value"] for place in places] == [20003, 20004]


def test_every_replica_is_asked_for_its_health_more_often_than_one_gives_notice(tmp_path: Path) -> None:
    """So a service that is told to stop is out of the gateway's list before it takes no more requests."""
    tls = GatewayTls(Sources(), tmp_path)
    made = {one["name"]: one for one in clusters(ADDRESSES, Path("jwks.sock"), Path("admin.sock"), None, tls)}
    notice = ServiceSettings.model_fields["notice_seconds"].default
    for service in SERVICES:
        [check] = made[service]["health_checks"]
        assert "grpc_health_check" in check
        assert float(check["interval"].rstrip("s")) + float(check["timeout"].rstrip("s")) <= notice


@pytest.mark.parametrize("service", SERVICES)
def test_no_query_parameter_can_override_a_path(contract: Contract, service: str) -> None:
    """A field in a path of a service must be in no query of it, or Envoy could not be told to ignore it there."""
    in_paths = {field for m in contract.of(service) for binding in m.bindings for field in binding.path_fields}
    assert in_paths == set(contract.path_only_fields(service))


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("/", "^/$"),
        ("/api-keys/{id}/revoke", "^/api%-keys/[^/]+/revoke$"),
        ("/v1/{name=a/*/b}/{path=**}:verify", "^/v1/a/[^/]+/b/.+:verify$"),
        ("/.well-known/x/$train", "^/%.well%-known/x/%$train$"),
    ],
)
def test_path_templates_become_lua_patterns(template: str, pattern: str) -> None:
    assert lua_pattern(template) == pattern
    assert regex(template) == pattern[1:-1].replace("%", "\\")
