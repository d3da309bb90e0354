"""Logs: every line of every part is a JSON object, with the fields that docs/observability.md says."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from strongroom.local import gateway
from tests.stack import Stack
from tests.test_gateway_rest import admin

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "observability.md").read_text()


def fields(part: str) -> set[str]:
    """Those that the page says a line about a request has, without the trace's: there is none."""
    rows = re.findall(r"^\| (`[^|]*`) \| ([a-z, ]+) \|", PAGE, re.MULTILINE)
    named = (row for row, where in rows if part in where.split(", ") or where == "all")
    return {name for row in named for name in re.findall(r"`(\w+)`", row)} - {"trace_id", "span_id"}


# What gRPC's core writes to standard error, in the format of absl.
_OF_GRPC = re.compile(r"[IWEF]\d{4} |WARNING: All log messages before absl")


def lines(log: Path) -> list[str]:
    """Whole ones, as the last may be under way, that are not gRPC's own."""
    return [line for line in log.read_text().split("\n")[:-1] if not _OF_GRPC.match(line)]


def test_every_line_of_every_part_is_an_object_that_says_what_happened(stack: Stack) -> None:
    logs = {log.stem: lines(log) for log in (stack.data_dir / "logs").glob("*.log")}
    assert logs.keys() == {"auth", "models", "secrets", "gateway"}
    for part in ("auth", "models", "secrets"):
        assert logs[part], part
    for part, found in logs.items():
        for line in found:
            assert json.loads(line)["event"], (part, line)


def test_a_request_is_found_by_its_id_with_all_that_the_page_says(stack: Stack) -> None:
    answer = admin(stack, "GET", "/api/v1/caller")
    found = [json.loads(line) for line in lines(stack.data_dir / "logs" / "auth.log")]
    [logged] = [line for line in found if line.get("request_id") == answer.headers["x-request-id"]]
    assert fields("services") <= logged.keys()
    assert (logged["event"], logged["code"], logged["level"]) == ("request", "OK", "info")


def test_the_gateway_writes_the_fields_of_the_page() -> None:
    text = (ROOT / "gateway" / "envoy.yaml").read_text()
    found = re.findall(r"^ +json_format:\n((?: +\w+: .*\n| +#.*\n)+)", text, re.MULTILINE)
    [written] = [each for each in found if "event: access" in each]
    assert {"request_id", "path", "cause"} <= fields("gateway") <= yaml.safe_load(written).keys()


def test_what_the_gateway_says_of_itself_is_an_object_too(tmp_path: Path) -> None:
    config = tmp_path / "envoy.yaml"
    config.write_text('{"a \\"quoted\\" name": 1}')
    done = subprocess.run([*gateway.command(config), "--mode", "validate"], capture_output=True, text=True, timeout=30)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert "critical" in {line["level"] for line in said}, said
    assert all({"time", "event", "logger"} <= line.keys() for line in said)
