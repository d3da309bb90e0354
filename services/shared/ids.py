"""Identifiers: ULIDs, so that ids sort by the time they were made."""

from ulid import ULID


def new_id() -> str:
    """A fresh ULID: 26 characters, sortable by creation time (https://github.com/ulid/spec)."""
    return str(ULID())
