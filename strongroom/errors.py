"""What can go wrong when calling Strongroom, as types.

try:
    client.secrets.get("prod/db")
except NotFound as error:
    print(error.reason, error.message)
"""

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class StrongroomError(Exception):
    """Any failure. `message` says what to do, `reason` is stable and for programs, `code` is the gRPC code's name.

    `retry_after` is in seconds, if it is known when the same call may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def request_id(self) -> str:
        """The id under which the request stands in the server's logs; empty if the error is the client's own."""
        return self.metadata.get("request_id", "")


class InvalidArgument(StrongroomError):
    """The request can never succeed as it is."""


class Unauthenticated(StrongroomError):
    """No credential, or not a valid one."""


class PermissionDenied(StrongroomError):
    """The credential is valid and does not allow this."""


class NotFound(StrongroomError):
    """What the request names does not exist."""


class AlreadyExists(StrongroomError):
    """What the request would create is there already."""


class FailedPrecondition(StrongroomError):
    """The state does not allow it now."""


class Conflict(StrongroomError):
    """Somebody else was faster: read again, then repeat."""


class OutOfRange(StrongroomError):
    """Beyond the end."""


class RateLimited(StrongroomError):
    """Too much at a time: wait for `retry_after` seconds, then repeat."""


class Unavailable(StrongroomError):
    """The server can't be reached or is not ready. Transfers continue where they were when they are run again."""


class CircuitOpen(Unavailable):
    """Calls in a row did not reach the server, so this one was not made. `retry_after` says when one is."""


class ServerUnproven(Unavailable):
    """The server did not prove who it is: no authority that is believed made its certificate, or for another name."""


class DataLoss(StrongroomError):
    """Bytes are damaged. Nothing damaged was written."""


class LocalFileError(StrongroomError):
    """A file or folder of the caller's is not as it must be."""


_BY_CODE: dict[grpc.StatusCode, type[StrongroomError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimited,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
}
# Strongroom gives a reason with these. Without one they tell of a stream that a proxy reset as its server died:
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
_NOT_OURS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
# How gRPC says that a handshake failed on the certificate.
_UNPROVEN = ("CERTIFICATE_VERIFY_FAILED", "Peer name ", "Hostname Verification Check failed")
_NOT_BELIEVED = (
    "The server's certificate is not one to believe for this address. Name its authority (ca.pem) with "
    "STRONGROOM_CA_FILE, ca_file or --ca-file, and reach it by a name that the certificate has."
)
# What OpenSSL makes of an answer in the clear.
_IN_THE_CLEAR = "WRONG_VERSION_NUMBER"
_NO_TLS = "The server does not speak TLS: write http:// if it is on this machine, or make certificates (docs/tls.md)."


def from_rpc(error: grpc.RpcError) -> StrongroomError:
    """The typed error of a failed call, with the reason and metadata of its ErrorInfo if it has one."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    code, said = error.code(), error.details() or ""
    info, retry = _details(error)
    if not info.reason and code is grpc.StatusCode.UNAVAILABLE and any(sign in said for sign in _UNPROVEN):
        return ServerUnproven(_NOT_BELIEVED, code=code.name, reason="CERTIFICATE_NOT_TRUSTED")
    if not info.reason and code is grpc.StatusCode.UNAVAILABLE and _IN_THE_CLEAR in said:
        return ServerUnproven(_NO_TLS, code=code.name, reason="TLS_NOT_SPOKEN")
    if not info.reason and code in _NOT_OURS:
        message = f"The connection broke ({said or code.name}). Run it again."
        return Unavailable(message, code=code.name, reason="CONNECTION_BROKEN")
    kind = _BY_CODE.get(code, StrongroomError)
    return kind(said or code.name, code=code.name, reason=info.reason, metadata=info.metadata, retry_after=retry)


def _details(error: grpc.Call | grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    """Why, and after how many seconds the call may be repeated."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type] # which needs no more than both have
    except ValueError:
        # The details contradict the status: a proxy between us put in its own.
        return info, _retry_after(error)
    seconds = None
    for detail in status.details if status is not None else ():
        if detail.Unpack(retry):
            # By hand: ToTimedelta fails for delays that no sane server sends.
            seconds = max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
        detail.Unpack(info)
    return info, _retry_after(error) if seconds is None else seconds


def _retry_after(error: grpc.Call | grpc.aio.AioRpcError) -> float | None:
    """The header of that name, in seconds (RFC 9110, section 10.2.3): a gateway that refuses knows no RetryInfo."""
    for name, value in (*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())):
        if name == "retry-after" and str(value).isdecimal():
            return float(value[:9])
    return None
