"""Which lines of the ledger a caller may see, and where a page of them begins."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from services.auth.key_versions import KIND
from services.auth.tables import api_keys
from services.auth.usage_tables import use_lines as lines
from services.shared.errors import InvalidArgument, PageTokenInvalid, PermissionMissing
from services.shared.identity import Principal
from services.shared.metering import Use

SELF = "self"
_PERMISSION, _RESOURCE = "usage.read", "usage"
_DAYS = timedelta(days=30)


class DayInvalid(InvalidArgument):
    reason = "FIELD_INVALID"


@dataclass(frozen=True, slots=True)
class Query:
    """What a caller asks for. `principal` may be `self`; an empty day is 30 days ago and today."""

    principal: str = ""
    from_day: str = ""
    to_day: str = ""


def wanted(connection: sa.Connection, caller: Principal, query: Query, today: date) -> sa.Select[Any]:
    """The lines that answer a query, the latest day first. Raises DayInvalid and PermissionDenied."""
    first = _day("from_day", query.from_day, today - _DAYS)
    last = _day("to_day", query.to_day, today)
    if first > last:
        raise DayInvalid("from_day is after to_day.", field="from_day")
    return (
        sa.select(lines)
        .where(lines.c.day.between(first.isoformat(), last.isoformat()), _visible(connection, caller, query.principal))
        .order_by(lines.c.day.desc(), lines.c.principal, lines.c.usage_class)
    )


def after(wanted: sa.Select[Any], page_token: str) -> sa.Select[Any]:
    """The lines behind the one that a token names. Raises PageTokenInvalid."""
    if not page_token:
        return wanted
    day, principal, usage_class = _read(page_token)
    behind = sa.tuple_(lines.c.principal, lines.c.usage_class) > sa.tuple_(principal, usage_class)
    return wanted.where((lines.c.day < day) | ((lines.c.day == day) & behind))


def token(line: Use) -> str:
    """The token of the page behind a line."""
    place = json.dumps([line.day, line.principal, line.usage_class], separators=(",", ":"))
    return base64.urlsafe_b64encode(place.encode()).decode()


def _read(page_token: str) -> list[str]:
    try:
        place = json.loads(base64.b64decode(page_token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if not (isinstance(place, list) and len(place) == 3 and all(_is_text(part) for part in place)):
        raise PageTokenInvalid("ListUsage")
    return place


def _is_text(part: object) -> bool:
    # NUL and surrogates are no characters to a database.
    return isinstance(part, str) and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in part)


def _day(field: str, text: str, default: date) -> date:
    try:
        return date.fromisoformat(text) if text else default
    except ValueError:
        raise DayInvalid(f"{field} is not a day such as 2026-11-21.", field=field) from None


def _visible(connection: sa.Connection, caller: Principal, principal: str) -> sa.ColumnElement[bool]:
    """The lines of a principal, or all that the caller may see: its own, and those of the keys it owns."""
    if principal == SELF:
        return lines.c.principal == caller.id
    if caller.allows(_PERMISSION, _RESOURCE):
        return lines.c.principal == principal if principal else sa.true()
    keys = sa.select(sa.literal(f"{KIND}:").concat(api_keys.c.id)).where(api_keys.c.owner == caller.id)
    if not principal:
        return (lines.c.principal == caller.id) | lines.c.principal.in_(keys)
    owned = sa.select(sa.literal(principal).in_(keys))
    if principal != caller.id and not connection.scalar(owned):
        hint = "Ask for your own use, or an administrator for a key that has it."
        raise PermissionMissing(_PERMISSION, _RESOURCE, hint)
    return lines.c.principal == principal
