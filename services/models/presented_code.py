"""The access code of a request."""

import grpc

from services.models.access_codes import AccessCode
from services.shared.call import caller, header

# In gRPC metadata, or in HTTP: never in a URL, which is logged.
HEADER = "x-access-code"


def access_code(context: grpc.ServicerContext, in_request: str = "") -> AccessCode | None:
    """The code in the header, or else in the request; None if there is none. Raises AccessCodeInvalid."""
    text = header(context, HEADER) or in_request
    return AccessCode(text, caller(context).id) if text else None
