"""What the interceptors know of a call, for the servicer that handles it."""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import grpc
from google.protobuf.message import Message

from services.shared.access import Method
from services.shared.identity import Principal

ADDRESS_HEADER = "x-forwarded-for"
ANONYMOUS = Principal(id="anonymous")
_ATTRIBUTE = "strongroom_call"


@dataclass
class Call:
    """One call on its way through the layers."""

    method: Method
    context: grpc.ServicerContext
    metadata: dict[str, str] = field(repr=False)
    # The request, or the iterator of a stream's messages.
    request: Any = field(repr=False)
    # Makes a message of bytes; None if the handler takes the bytes as they are.
    deserializer: Callable[[bytes], Any] | None = field(default=None, repr=False)
    # The request, or the first message of a stream, decoded; None until a layer asks for it.
    first: Message | None = field(default=None, repr=False)
    request_id: str = ""
    principal: Principal = ANONYMOUS
    # Whether a valid credential was presented.
    identified: bool = False
    # The answer, unless it is a stream; None until the servicer has given it.
    answer: Any = field(default=None, repr=False)
    # What the messages of a streamed answer pass through, the first innermost.
    around_answers: list[Callable[[Iterator[Any]], Iterator[Any]]] = field(default_factory=list, repr=False)
    # What the audit layers keep of the call.
    audit: Any = field(default=None, repr=False)
    # Whether the request is a stream, and whether the answer is.
    streams_request: bool = False
    streams_answer: bool = False
    # Bytes of the messages that came and went so far.
    bytes_received: int = 0
    bytes_sent: int = 0
    # Metadata of the answer: headers of a single one, trailers of an error.
    hints: list[tuple[str, str]] = field(default_factory=list)
    # gRPC code of the outcome, for log and metrics.
    outcome: str = "OK"

    def attach(self) -> None:
        """Makes the call known to `caller` and `request_id`."""
        setattr(self.context, _ATTRIBUTE, self)


def _call(context: grpc.ServicerContext) -> Call:
    call: Any = getattr(context, _ATTRIBUTE)
    assert isinstance(call, Call)
    return call


def caller(context: grpc.ServicerContext) -> Principal:
    """Who makes the call; ANONYMOUS for public methods."""
    return _call(context).principal


def acts_as(context: grpc.ServicerContext, principal: Principal) -> None:
    """Says who it is that calls a public method, for log and audit, where the servicer finds out."""
    _call(context).principal = principal


def header(context: grpc.ServicerContext, name: str) -> str:
    """A header of the request by its name in lower case; empty if it did not come."""
    return _call(context).metadata.get(name, "")


def request_id(context: grpc.ServicerContext) -> str:
    """The id under which the call stands in the logs of gateway and services."""
    return _call(context).request_id


def answer_header(context: grpc.ServicerContext, name: str, value: str) -> None:
    """Sends a header with the answer, unless that is a stream."""
    _call(context).hints.append((name, value))


def client_address(context: grpc.ServicerContext) -> str:
    """The client's address as the gateway saw it; empty for a call that did not come through it."""
    return address_of(_call(context).metadata)


def address_of(metadata: dict[str, str]) -> str:
    """The last address of `x-forwarded-for`: the gateway appends what it saw to whatever the client claimed."""
    return _address(metadata.get(ADDRESS_HEADER, "").rpartition(",")[2].strip())


@lru_cache(maxsize=4096)
def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
