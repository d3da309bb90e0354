"""Failures are types: whatever code a server gives, both Python clients raise the same error, with all that it says."""

from collections.abc import Callable

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from strongroom import errors
from strongroom.retries import Repeat
from tests import test_async_client_patience as patience
from tests.test_client_retries import Moody, asking

pytestmark = pytest.mark.row("S3.7")

KINDS = {
    "INVALID_ARGUMENT": errors.InvalidArgument,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "FAILED_PRECONDITION": errors.FailedPrecondition,
    "ABORTED": errors.Conflict,
    "OUT_OF_RANGE": errors.OutOfRange,
    "RESOURCE_EXHAUSTED": errors.RateLimited,
    "UNAVAILABLE": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.Unavailable,
    "DATA_LOSS": errors.DataLoss,
    "INTERNAL": errors.StrongroomError,
    "UNKNOWN": errors.StrongroomError,
}


def refusing(code: str) -> Moody:
    info = error_details_pb2.ErrorInfo(reason="A_REASON", domain="strongroom", metadata={"request_id": "r-1"})
    detail = any_pb2.Any()
    detail.Pack(info)
    return Moody([status_pb2.Status(code=grpc.StatusCode[code].value[0], message="Do this.", details=[detail])])


def asked(code: str) -> errors.StrongroomError:
    with asking(refusing(code)) as client, pytest.raises(errors.StrongroomError) as caught:
        client.get(Repeat.NEVER)
    return caught.value


def awaited(code: str) -> errors.StrongroomError:
    found: list[errors.StrongroomError] = []

    async def using(client: patience.Asking) -> None:
        with pytest.raises(errors.StrongroomError) as caught:
            await client.get(Repeat.NEVER)
        found.append(caught.value)

    patience.ask(refusing(code), using)
    return found[0]


@pytest.mark.parametrize("call", [asked, awaited])
@pytest.mark.parametrize("code", KINDS)
def test_every_code_is_a_type_with_reason_sentence_and_request_id(
    call: Callable[[str], errors.StrongroomError], code: str
) -> None:
    error = call(code)
    assert type(error) is KINDS[code]
    assert (error.code, error.reason, error.message, error.request_id) == (code, "A_REASON", "Do this.", "r-1")


def test_every_code_that_there_is_has_one() -> None:
    codes = {code.name for code in grpc.StatusCode} - {"OK"}
    # Nobody but the caller cancels, and no server of ours lacks a method that a client of ours calls.
    assert codes - KINDS.keys() == {"CANCELLED", "UNIMPLEMENTED"}


def test_an_internal_error_without_a_reason_is_a_broken_connection() -> None:
    """A server of ours always gives one: without, a proxy reset the stream, and the call may be made again."""
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message="RST_STREAM")
    with asking(Moody([status])) as client, pytest.raises(errors.Unavailable) as caught:
        client.get(Repeat.NEVER)
    assert caught.value.reason == "CONNECTION_BROKEN"
