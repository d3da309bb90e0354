"""Metrics: each is documented, and the alert rules and the dashboard ask for none that there is not."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import requests
import yaml

from services.shared.metrics import Reading, _Asked
from strongroom import Client
from tests.stack import Stack

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "observability.md"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "strongroom.json"
_NAME = re.compile(r"\b(?:strongroom|envoy|process)_[a-z0-9_]+|\bup\b")
# What Prometheus makes of one metric.
_SUFFIX = re.compile(r"_(bucket|sum|count|created)$")
# What Prometheus adds to all that it asks for.
_OF_PROMETHEUS = {"job", "instance", "le"}
_LISTEN = ("STRONGROOM_METRICS_LISTEN", "STRONGROOM_GATEWAY_METRICS_LISTEN")


@pytest.fixture(scope="module")
def scraped(stack: Stack) -> dict[str, str]:
    """What each part tells Prometheus."""
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.admin.caller()
        list(client.models.list())
    ports = stack.state["metrics"]
    return {part: requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text for part, port in ports.items()}


def families(text: str) -> dict[str, str]:
    """The metrics by name, with their types."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def own(scraped: dict[str, str]) -> set[str]:
    names = {name for text in scraped.values() for name in families(text) if name.startswith("strongroom_")}
    return {name for name in names if not name.endswith("_created")}


def documented() -> dict[str, str]:
    """The rows of the page: the metrics by name, with their labels."""
    return dict(re.findall(r"^\| `(strongroom_[a-z_]+)(\{[a-z, ]+\})?`", PAGE.read_text(), re.MULTILINE))


def test_every_metric_is_documented_and_every_documented_one_is_there(scraped: dict[str, str]) -> None:
    assert set(documented()) == own(scraped)


def test_labels_are_those_of_the_page(scraped: dict[str, str]) -> None:
    page = documented()
    for text in scraped.values():
        for name, labels in re.findall(r"^(strongroom_[a-z_]+)\{([^}]*)\} ", text, re.MULTILINE):
            found = set(re.findall(r"(\w+)=", labels)) - {"le"}
            family = name if name in page else _SUFFIX.sub("", name)
            if family in page:
                assert found == set(re.findall(r"\w+", page[family])), name


def test_units_stand_at_the_end_of_names_and_counters_are_totals(scraped: dict[str, str]) -> None:
    for text in scraped.values():
        for name, kind in families(text).items():
            if name.startswith("strongroom_") and not name.endswith("_created"):
                assert (kind == "counter") == name.endswith("_total"), name


def test_no_label_is_chosen_by_a_caller(stack: Stack, scraped: dict[str, str]) -> None:
    for path in ("/api/v1/secrets/a-name-of-a-callers", "/nowhere/a-name-of-a-callers"):
        requests.get(f"{stack.url}{path}", headers={"X-API-Key": "a-name-of-a-callers"}, timeout=10)
    for port in stack.state["metrics"].values():
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        assert "a-name-of-a-callers" not in text
        assert stack.admin_key not in text


def test_the_gateways_metrics_lead_to_nothing_else_of_its_administration(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.state['metrics']['gateway']}"
    for path in ("/", "/quitquitquit", "/config_dump", "/stats", "/healthcheck/fail", "/metrics/../config_dump"):
        for verb in ("GET", "POST"):
            assert requests.request(verb, f"{url}{path}", timeout=10).status_code == 404, path
    assert requests.post(f"{url}/metrics", timeout=10).status_code == 404
    assert requests.get(f"{stack.url}/metrics", timeout=10).status_code == 404


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Of the dashboard, with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "5m") for query in found]


@pytest.mark.parametrize("query", [rule["expr"] for rule in rules()] + queries())
def test_every_query_is_promql_over_metrics_that_there_are(scraped: dict[str, str], query: str) -> None:
    promql_parser.parse(query)
    known = {name for text in scraped.values() for name in families(text)} | {"up"}
    asked = set(_NAME.findall(re.sub(r"\{[^}]*\}|by \([^)]*\)", "", query)))
    assert asked, query
    for name in asked:
        assert name in known or _SUFFIX.sub("", name) in known, name


@pytest.mark.parametrize("query", [rule["expr"] for rule in rules()] + queries())
def test_every_query_chooses_by_labels_that_the_metric_has(query: str) -> None:
    """Of another label it would find nothing, and the alert never fire."""
    page = documented()
    for name, chosen in re.findall(r"\b(strongroom_[a-z_]+)\{([^}]*)\}", query):
        labels = page[name if name in page else _SUFFIX.sub("", name)]
        assert set(re.findall(r"(\w+)\s*(?:=|!)", chosen)) <= set(re.findall(r"\w+", labels)) | _OF_PROMETHEUS, query


def test_every_alert_of_the_page_is_there() -> None:
    named = re.findall(r"^\| (`Strongroom[^|]*) \|", PAGE.read_text(), re.MULTILINE)
    assert {name for row in named for name in re.findall(r"`(\w+)`", row)} == {rule["alert"] for rule in rules()}


def test_prometheus_asks_the_parts_of_the_compose_file_where_they_answer() -> None:
    asked = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
    targets = {one for job in asked["scrape_configs"] for each in job["static_configs"] for one in each["targets"]}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    listening = {name: part.get("environment", {}) for name, part in compose.items()}
    ports = {name: told.get(_LISTEN[name == "gateway"]) for name, told in listening.items()}
    assert targets == {f"{name}:{port.rpartition(':')[2]}" for name, port in ports.items() if port}
    assert asked["rule_files"] == [ALERTS.name]
    jobs = {job["job_name"] for job in asked["scrape_configs"]}
    for query in [rule["expr"] for rule in rules()] + queries():
        for chosen in re.findall(r'job=~?"([^"]+)"', query):
            assert any(re.fullmatch(chosen, job) for job in jobs), query


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    page = PAGE.read_text()
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"`{rule['alert']}`" in page, rule["alert"]


def test_promtool_accepts_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; the queries are parsed by another test")
    subprocess.run([promtool, "check", "rules", ALERTS], check=True, capture_output=True)


def test_panels_have_titles_units_and_places_of_their_own() -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)


def test_what_cannot_be_looked_up_is_left_out_and_the_rest_is_there() -> None:
    def fails() -> list[Reading]:
        raise ConnectionError

    found = list(_Asked([fails, lambda: [Reading("a_seconds", "A.", 1, {"of": "b"})]]).collect())
    assert [family.name for family in found] == ["a_seconds"]
