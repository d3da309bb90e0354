"""Checks a request against the rules in its proto, and says what is wrong in words."""

import re

import protovalidate
from google.protobuf.message import Message

from services.shared.errors import InvalidArgument

# A person reads these in place of a regular expression. A test asks for words for every pattern of the contract.
IN_WORDS = {
    r"^[0-9A-Za-z-]{1,64}$": "must be an id: 1 to 64 letters, digits and dashes",
    r"^[0-9A-Za-z]{1,64}$": "must be an id: 1 to 64 letters and digits",
    r"^[0-9A-Za-z]{0,64}$": "must be an id of at most 64 letters and digits, or empty",
    r"^[A-Za-z0-9._-]{1,128}$": "must be 1 to 128 letters, digits, dots, dashes and underscores",
    r"^[A-Za-z0-9._-]{0,128}$": "must be at most 128 letters, digits, dots, dashes and underscores, or empty",
    r"^[A-Za-z0-9._/-]+$": "must be letters, digits, dots, dashes, underscores and slashes",
    r"^[A-Za-z0-9._/-]*$": "must be letters, digits, dots, dashes, underscores and slashes, or empty",
    r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$": (
        "must be a path like prod/db: letters, digits, dots, dashes and underscores between slashes, no part starting "
        "with a dot"
    ),
    r"^(strongroom://.*)?$": "must be like strongroom://MANAGER/MODEL/VERSION/PATH, or empty",
    r"^(\*|[a-z]+\.(\*|[a-z]+))$": "must be a permission like models.read, models.* or *",
    r"^[^\x00-\x1f\x7f]*$": "must be one line, without control characters",
    r"^(\*|[0-9A-Za-z]{0,64})$": "must be an etag as it was read, * or empty",
    r"^[a-z0-9][a-z0-9-]{0,31}$": "must be a name: 1 to 32 lower-case letters, digits and dashes",
    r"^([a-z0-9][a-z0-9-]{0,31})?$": "must be a name: 1 to 32 lower-case letters, digits and dashes, or empty",
    r"^[a-z0-9-]{1,64}$": "must be a name: 1 to 64 lower-case letters, digits and dashes",
    r"^[A-Za-z0-9][A-Za-z0-9._/-]*$": (
        "must be letters, digits, dots, dashes, underscores and slashes, the first of them a letter or digit"
    ),
    r"^[A-Za-z0-9*,/# -]*$": "must be a schedule as in cron, like 0 3 * * SUN, or empty",
    r"^[A-Za-z0-9_+/-]*$": "must be a time zone like Europe/Vienna, or empty",
    r"^([0-7][0-9A-HJKMNP-TV-Z]{25})?$": "must be a ULID: 26 digits and capital letters, or empty",
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$": "must be a day like 2026-11-21, or empty",
}

_PATTERN = re.compile(r"does not match regex pattern `(.*)`$")
_validator = protovalidate.Validator()


def check(message: Message) -> None:
    """Raises InvalidArgument, FIELD_INVALID, naming the first field that breaks a rule."""
    # The first violation alone: 100,000 bad items, in a message of 200 KB, would be gigabytes of violations.
    violations = _validator.collect_violations(message, fail_fast=True)
    if violations:
        field, what = _path(violations[0]), _words(violations[0].proto.message)
        raise InvalidArgument(f"{field} {what}.", reason="FIELD_INVALID", field=field)


def _path(violation: protovalidate.Violation) -> str:
    path = violation.proto.field
    return ".".join(element.field_name for element in path.elements) if path else "request"


def _words(message: str) -> str:
    pattern = _PATTERN.search(message)
    return IN_WORDS.get(pattern.group(1), message) if pattern else message.removeprefix("value ")
