"""Etags: what is changed is what was read (AIP-154, RFC 9110 section 8.8.3). Pure."""

from services.shared.errors import Aborted

# Of what nobody has set yet.
NEVER_SET = "0"
# Stands for every etag but that.
WHATEVER_IS_SET = "*"


class EtagMismatch(Aborted):
    """What the caller wants to change is not what the caller has read."""

    reason = "ETAG_MISMATCH"


def check(expected: str, current: str) -> None:
    """Lets a change pass that expects nothing, or what is there. Raises EtagMismatch."""
    if not (current != NEVER_SET if expected == WHATEVER_IS_SET else expected in ("", current)):
        raise EtagMismatch("Somebody has changed this since you read it. Read it again, then repeat.", etag=current)
