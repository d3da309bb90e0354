"""The one table from domain errors to gRPC codes."""

import math

import grpc
import sqlalchemy as sa
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from services.shared import errors

ERROR_DOMAIN = "strongroom"

_log = structlog.get_logger()

CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.DomainError: grpc.StatusCode.INTERNAL,
}


# A dependency's codes for which the caller should try again.
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# A connection that is lost or not made, a lock that is not given up, a pool without a free connection.
_NO_DATABASE = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


def foreseen(error: BaseException) -> errors.DomainError | None:
    """The domain error that a call ends with: the one raised, or one for a service that did not answer us."""
    if isinstance(error, grpc.Call) and error.code() in _NO_ANSWER:
        message = "A service that this request needs does not answer. Try again."
        return errors.Unavailable(message, reason="DEPENDENCY_UNAVAILABLE")
    if isinstance(error, _NO_DATABASE) or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated):
        _log.warning("the database does not answer", error=f"{type(error).__name__}: {error}")
        return errors.Unavailable("The database does not answer. Try again.", reason="DEPENDENCY_UNAVAILABLE")
    return error if isinstance(error, errors.DomainError) else None


def code_of(error: errors.DomainError) -> grpc.StatusCode:
    """The code of the error's nearest class that the table names."""
    return next(CODES[cls] for cls in type(error).__mro__ if cls in CODES)


def status_of(error: errors.DomainError, request_id: str) -> status_pb2.Status:
    """The `google.rpc.Status` of an error: one ErrorInfo, and behind it RetryInfo where the error says when."""
    metadata = {**error.metadata, "request_id": request_id}
    status = _status(code_of(error), error.message, error.error_reason, metadata)
    if isinstance(error, errors.ResourceExhausted) and error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        # In whole seconds and upwards, as `Retry-After` counts (RFC 9110, section 10.2.3): who waits gets in.
        retry.retry_delay.FromSeconds(math.ceil(error.retry_after))
        status.details.add().Pack(retry)
    return status


def internal_status(request_id: str) -> status_pb2.Status:
    """What a caller learns of an error nobody foresaw: an id to find it in the log by."""
    message = f"Internal error. The service's log has the details under request id {request_id}."
    return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL", {"request_id": request_id})


def _status(code: grpc.StatusCode, message: str, reason: str, metadata: dict[str, str]) -> status_pb2.Status:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata))
    return status_pb2.Status(code=code.value[0], message=message, details=[info])
