"""The gateway does what its OpenAPI document says: requests made of it, valid and invalid, for every operation.

`OPENAPI_EXAMPLES=100` makes so many of each kind, on an installation of their own, and wants every operation to name
the reasons of its failures.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import negative_data_rejection

from strongroom.client import Client
from tests.page_assets import PAGES
from tests.stack import RunningStack, Stack

DOCUMENT = json.loads((PAGES / "openapi.json").read_text())
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "0"))

# What everybody here shares: these are asked by one who may not, unless the installation is the test's own.
_SHARED = frozenset(
    {
        "RotateSigningKey",
        "MoveRootKey",
        "RebuildIndex",
        "CollectGarbage",
        "SyncStores",
        "SyncProviders",
        "VerifyAuditLog",
    }
)
# Reasons of failures that any operation may have, whatever it does.
_ANYWHERE = frozenset(
    {"PATH_UNKNOWN", "METHOD_NOT_ALLOWED", "REQUEST_TIMEOUT", "HEADERS_TOO_LARGE", "CREDENTIAL_IN_URL"}
)
_CHECKS: dict[str, Any] = {
    # A page token, a password, a regular expression, a time to come: no schema says which are valid. Instead each
    # refusal must have a reason that the operation documents.
    "positive_data_acceptance": {"enabled": False},
    # The gateway refuses a body before it reads it.
    "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 412, 413, 429, 431]},
}


@pytest.fixture(scope="module", name="installation")
def _installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All that the tests share, or with OPENAPI_EXAMPLES one of this test's own."""
    if not EXAMPLES:
        yield request.getfixturevalue("stack")
        return
    with RunningStack(tmp_path_factory.mktemp("openapi") / "data") as own:
        yield own


@pytest.mark.slow
@pytest.mark.timeout(180 + 60 * EXAMPLES)
@pytest.mark.row("S1.6")
def test_every_operation_does_as_documented(installation: Stack) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT, config=_config())
    with Client(installation.url, api_key=installation.admin_key) as client:
        weak = client.keys.create("openapi", permission_set="predict").key
    failures: list[str] = []
    calls = 0
    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            name = operation.definition.raw["operationId"]
            key = weak if name in _SHARED and not EXAMPLES else installation.admin_key
            for mode in GenerationMode:
                calls += _try(operation, mode, installation.url, key, session, failures)
    assert calls > 200
    assert not failures, f"{len(failures)} of {calls}:\n\n" + "\n\n".join(failures)


def _config() -> schemathesis.Config:
    generation = {"with-security-parameters": False, "allow-x00": False}
    return schemathesis.Config.from_dict({"generation": generation, "checks": _CHECKS})


def _try(
    operation: Any, mode: GenerationMode, url: str, key: str, session: requests.Session, failures: list[str]
) -> int:
    """Makes requests of one kind and looks at the answers. Returns how many it made."""
    calls = 0

    @settings(
        max_examples=EXAMPLES or (2 if mode is GenerationMode.POSITIVE else 1),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        nonlocal calls
        calls += 1
        answer = case.call(base_url=url, session=session, headers={"X-API-Key": key}, timeout=60)
        try:
            case.validate_response(answer, excluded_checks=[negative_data_rejection] if _has_null(case.body) else [])
            _check_reason(operation.definition.raw, answer)
        except (FailureGroup, Failure, AssertionError) as failure:
            failures.append(f"{operation.label} {answer.status_code}: {_said(failure)}\n{answer.text[:300]}")

    # What takes nothing takes nothing invalid.
    with suppress(Unsatisfiable):
        run()
    return calls


def _has_null(value: Any) -> bool:
    """In JSON that protobuf reads null is no wrong value: it is none (https://protobuf.dev/programming-guides/json)."""
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))


def _check_reason(operation: dict[str, Any], answer: Any) -> None:
    """Every failure has a reason of its status that is documented: anywhere, and at length with its operation."""
    if answer.status_code < 400:
        return
    response = operation["responses"][str(answer.status_code)]
    if reference := response.get("$ref"):
        response = DOCUMENT["components"]["responses"][Path(reference).name]
    problem = answer.json()
    if EXAMPLES:
        assert problem["reason"] in {*response["x-reasons"], *_ANYWHERE}, f"undocumented reason {problem['reason']}"
    assert problem["status"] == DOCUMENT["x-reasons"][problem["reason"]]["status"]


def _said(failure: BaseException) -> str:
    if isinstance(failure, FailureGroup):
        return "; ".join(_said(inner) for inner in failure.exceptions)
    return " ".join(str(failure).split())[:600]
