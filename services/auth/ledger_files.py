"""The ledger as a file, in pieces."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice

from services.shared.metering import Use

CSV, JSON = "csv", "json"
CONTENT_TYPES = {CSV: "text/csv; charset=utf-8; header=present", JSON: "application/json"}

_COLUMNS = ("day", "principal", "name", "usage_class", "requests", "errors", "bytes_received", "bytes_sent")
_COMPUTED = ("job_seconds", "cost_estimate")
# Of one piece.
_LINES = 1000
# What a spreadsheet takes for the beginning of a formula, full-width forms too.
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def pieces(form: str, lines: Iterable[Use]) -> Iterator[bytes]:
    """The file in the form `csv` or `json`."""
    return _csv(lines) if form == CSV else _json(lines)


def _csv(lines: Iterable[Use]) -> Iterator[bytes]:
    """RFC 4180. Texts that a spreadsheet would compute begin with an apostrophe, which it shows as text."""
    rest, head = iter(lines), [_COLUMNS + _COMPUTED]
    while some := [*head, *(_cells(line) for line in islice(rest, _LINES))]:
        text = io.StringIO()
        csv.writer(text).writerows(some)
        yield text.getvalue().encode()
        head = []


def _json(lines: Iterable[Use]) -> Iterator[bytes]:
    """An array of objects with the fields of ListUsage, one a line."""
    rest, before = iter(lines), "[\n"
    while some := list(islice(rest, _LINES)):
        yield (before + ",\n".join(json.dumps(_fields(line), ensure_ascii=False) for line in some)).encode()
        before = ",\n"
    yield b"\n]\n" if before == ",\n" else b"[]\n"


def _fields(line: Use) -> dict[str, str | int | float]:
    fields = {name: getattr(line, name) for name in _COLUMNS}
    return fields | {"job_seconds": line.job_milliseconds / 1000, "cost_estimate": line.cost_micros / 1_000_000}


def _cells(line: Use) -> tuple[str | int | float, ...]:
    return tuple(_harmless(value) if isinstance(value, str) else value for value in _fields(line).values())


def _harmless(text: str) -> str:
    # A tab or a line break at the beginning hides what comes behind.
    return f"'{text}" if text.strip().startswith(_FORMULA) or text[:1].isspace() else text
