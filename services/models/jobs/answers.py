"""What a job's process answers, and how a job ends that came to nothing. What it answers anybody may have written."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog

from services.models.jobs.links import FolderFull
from services.models.jobs.process import ProcessTimeout
from services.models.jobs.queue import FAILED, Outcome
from services.models.runners.frames import FrameBroken
from services.shared.errors import DomainError
from strongroom.runners import Cell

# What a process may give as the reason of its failure.
_REASON = re.compile(r"[A-Z_]{1,64}")

_log = structlog.get_logger()


class CredentialRevoked(Exception):
    """Whoever submitted the job has lost the right to it."""


def refusal(answer: Mapping[str, Any]) -> Outcome:
    """How a job ends whose process says that it failed."""
    reason = str(answer["failed"])
    known = reason if _REASON.fullmatch(reason) else "RUNNER_FAILED"
    return Outcome(FAILED, _plain(answer.get("message", ""))[:1000], known)


def failure(error: Exception, job_id: str) -> Outcome:
    """How a job ends that could not be run to its end."""
    match error:
        case ProcessTimeout():
            return Outcome(
                FAILED, "The job took longer than it may. A config's `timeout_seconds` says how long.", "JOB_TIMEOUT"
            )
        case FolderFull():
            return Outcome(FAILED, "The job wrote more files than it may.", "FOLDER_FULL")
        case FrameBroken():
            return Outcome(FAILED, "The runner disturbed the answer of its process.", "RUNNER_BROKEN")
        case CredentialRevoked():
            return Outcome(FAILED, "The credential that submitted the job was revoked.", "CREDENTIAL_REVOKED")
        case DomainError():
            return Outcome(FAILED, error.message, error.error_reason)
        case _:
            _log.exception("a job failed here", job=job_id)
            return Outcome(FAILED, "Internal error. The service's log has the details under the job's id.", "INTERNAL")


def model_data(answer: Mapping[str, Any], given: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What the artifact of a trained model says."""
    trained_at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"model_type": _plain(answer.get("model_type", ""))[:256], "trained_at": trained_at, **given["lineage"]}


def predictions(answer: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The table that the process answered. Raises FrameBroken if it is none."""
    columns, rows = _names(answer), answer.get("data")
    if not isinstance(rows, list):
        raise FrameBroken("no table")
    if len(rows) != given["rows"] or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise FrameBroken("another table")
    return {"columns": columns, "data": [list(map(_cell, row)) for row in rows]}


def predictions_file(answer: Mapping[str, Any], given: Mapping[str, Any], url: str) -> dict[str, Any]:
    """What is said of predictions that are a file. Raises FrameBroken if they are other ones."""
    if answer.get("rows") != given["rows"]:
        raise FrameBroken("another table")
    return {"columns": _names(answer), "rows": given["rows"], "url": url}


def _names(answer: Mapping[str, Any]) -> list[str]:
    columns = answer.get("columns")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise FrameBroken("no table")
    return list(map(_text, columns))


def _cell(value: object) -> Cell:
    """A value of a table; JSON has no infinity and no NaN, which are null. Raises FrameBroken."""
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise FrameBroken("no table")
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that no double holds
        raise FrameBroken("no number") from None


def _text(value: str) -> str:
    """A text that can be sent on. Raises FrameBroken: JSON may hold halves of characters, which UTF-8 may not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FrameBroken("no text") from None
    return value


def _plain(value: object) -> str:
    """What is said in passing, with whatever neither UTF-8 nor PostgreSQL takes left out."""
    return str(value).encode(errors="replace").decode().replace("\0", "")
