"""Moments: aware datetimes in the domain, protobuf timestamps on the wire."""

from collections.abc import Callable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

Clock = Callable[[], datetime]


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The moment as a message; None stays unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def moment(message: Timestamp) -> datetime:
    """The message as a moment in UTC."""
    return message.ToDatetime(tzinfo=UTC)
