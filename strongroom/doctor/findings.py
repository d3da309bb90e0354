"""What a look at something finds."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    # It was not looked at: something that is needed for it is missing.
    SKIPPED = "skipped"
    # It works, and will not for ever.
    WARNING = "warning"
    # Something does not work, or is not safe.
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """`advice` says what to do; empty where nothing is to be done. No credential is in either text."""

    level: Level
    subject: str
    message: str
    advice: str = ""


def ok(subject: str, message: str) -> Finding:
    return Finding(Level.OK, subject, message)


def skipped(subject: str, message: str, advice: str = "") -> Finding:
    return Finding(Level.SKIPPED, subject, message, advice)


def warning(subject: str, message: str, advice: str) -> Finding:
    return Finding(Level.WARNING, subject, message, advice)


def failure(subject: str, message: str, advice: str) -> Finding:
    return Finding(Level.FAILURE, subject, message, advice)


def works(findings: Iterable[Finding]) -> bool:
    """Whether none of them is a failure."""
    return all(finding.level is not Level.FAILURE for finding in findings)
