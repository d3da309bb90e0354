"""What the edge asks about a request before it lets it in: by whose credential?

The edge has verified access tokens itself and does not ask about requests that carry one; of every other credential
an authenticator knows the kind.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.auth import key_format
from services.auth.edge_events import EdgeEvents
from services.auth.issuer import TokenIssuer
from services.shared.access import CHECK_METHOD, PROTOCOL_METHODS, Method
from services.shared.identity import Principal

_METHOD = re.compile(r"/strongroom\.(?P<service>[a-z]+)\.v1\.\w+/\w+")
# Where the ML service's documented answer to a missing key applies; the registry's applies elsewhere.
_NAMED_HEADER_PATHS = "/api/v1/"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request at the edge.

    `method` is the gRPC path after transcoding, `original_path` the REST path before it, empty for gRPC. Header values
    are None where the header is missing; HTTP joins repeated headers with a comma, and no key of ours is two keys and a
    comma.
    """

    method: str
    original_path: str = ""
    api_key: str | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)
    request_id: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Let in; the token, if any, tells the upstream service who calls."""

    identity_token: str = field(default="", repr=False)
    credential_id: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Kept out, with an HTTP status and a sentence."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """What is wrong with a credential: for the log alone, callers are not told."""

    cause: str


class Authenticator(Protocol):
    """Knows credentials of one kind."""

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        """Whose credential the attempt carries, or what is wrong with it; None if it carries none of this kind."""
        ...


_INVALID = Refused(401, "Invalid authentication credentials")
_NO_SUCH_METHOD = Refused(404, "There is no such method.")


class Admission:
    """Decides on attempts. A revoked credential fails at the next request, through every replica, because an
    authenticator asks the database at every one.

    Args:
        methods: every method that the gateway may be asked for, by path.
        authenticators: the kinds of credentials, asked in this order until one knows the attempt's.
        events: hears of refusals.
        anonymous: who comes without a credential, in open mode; None if that is refused.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        authenticators: Sequence[Authenticator],
        issuer: TokenIssuer,
        events: EdgeEvents,
        anonymous: Principal | None = None,
    ) -> None:
        self._methods = methods
        self._authenticators = authenticators
        self._issuer = issuer
        self._events = events
        self._anonymous = anonymous

    def decide(self, attempt: Attempt) -> Admitted | Refused:
        """Whether the request may pass, and as whom. A credential sent along with a public method is not looked at."""
        method = self._methods.get(attempt.method)
        if method.public if method else _open_protocol(attempt.method):
            return Admitted()
        stranger = attempt.api_key is None and attempt.authorization is None
        if stranger and self._anonymous is None:
            self._events.missing_key(attempt.method, address=attempt.address, request_id=attempt.request_id)
            return _missing(attempt)
        principal = self._anonymous if stranger else self._authenticate(attempt)
        if principal is None:
            return _INVALID
        service = _METHOD.fullmatch(attempt.method)
        if method is None or service is None:
            return _NO_SUCH_METHOD
        return Admitted(self._issuer.identity_token(principal, service["service"]), principal.credential_id)

    def _authenticate(self, attempt: Attempt) -> Principal | None:
        judged = self._judge(attempt)
        if isinstance(judged, Principal):
            return judged
        # What has our format is named by its prefix; of anything else not a character is logged.
        given = key_format.parse(attempt.api_key or "")
        self._events.invalid_key(
            attempt.method,
            judged.cause,
            key_prefix=given.prefix if given else "",
            address=attempt.address,
            request_id=attempt.request_id,
        )
        return None

    def _judge(self, attempt: Attempt) -> Principal | Rejected:
        # One credential: whoever sends a second, wrong one must learn that it is wrong.
        if attempt.api_key is not None and attempt.authorization is not None:
            return Rejected("two credentials")
        for authenticator in self._authenticators:
            judged = authenticator.judge(attempt)
            if judged is not None:
                return judged
        return Rejected("unknown")


def _open_protocol(method: str) -> bool:
    return method != CHECK_METHOD and PROTOCOL_METHODS.fullmatch(method) is not None


def _missing(attempt: Attempt) -> Refused:
    named = attempt.original_path.startswith(_NAMED_HEADER_PATHS)
    message = "Missing authentication header: X-API-Key" if named else "Authentication required"
    return Refused(401, message)
