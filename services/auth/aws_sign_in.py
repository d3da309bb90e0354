"""Access tokens for AWS identities, which prove themselves by a signed `GetCallerIdentity` request."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from xml.etree.ElementTree import ParseError

import sqlalchemy as sa
import structlog
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from services.auth import aws_requests
from services.auth.aws_requests import Accepted, Endpoint, RequestRefused, SignedRequest
from services.auth.issuer import TokenIssuer
from services.auth.outbound import Outbound, PeerUnavailable
from services.auth.outside_credentials import credential_id
from services.auth.tables import aws_requests as accepted_requests
from services.auth.trust_files import AwsRule
from services.shared.database import Database
from services.shared.errors import PermissionDenied, ResourceExhausted
from services.shared.identity import Principal
from services.shared.tokens import ACCESS_SECONDS, InvalidToken

KIND = "aws"

_XML = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_ARN = re.compile(
    r"arn:(?P<partition>aws(-[a-z]+)*):(iam|sts)::(?P<account>\d{12}):"
    r"(?P<kind>user|assumed-role|federated-user)/(?P<name>[A-Za-z0-9+=,.@_/-]{1,1024})"
)
# Anybody may make us ask AWS: no more than so many of our threads wait for it.
_ASKING = 4

_log = structlog.get_logger()


class IdentityNotMapped(PermissionDenied):
    reason = "IDENTITY_NOT_MAPPED"


class AwsBusy(ResourceExhausted):
    reason = "AWS_SIGN_IN_BUSY"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed. `arn` is a role's or user's own, as it stands in IAM: sessions of a role have names of their own
    choosing, which must not decide anything."""

    account: str
    kind: str
    name: str
    arn: str

    @property
    def principal(self) -> str:
        return f"{KIND}:{self.account}/{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A token and whom it stands for."""

    token: str = field(repr=False)
    seconds: int
    principal: Principal


class AwsSignIn:
    """Finds out who signed a request, and makes a token for who is mapped.

    Args:
        rules: the first that holds decides.
        endpoints: the STS that may be asked.
        server: what a request must be signed for.
    """

    def __init__(
        self,
        rules: Sequence[AwsRule],
        endpoints: Mapping[str, Endpoint],
        server: str,
        database: Database,
        issuer: TokenIssuer,
        web: Outbound,
        clock: Callable[[], datetime],
    ) -> None:
        self._rules = rules
        self._endpoints = endpoints
        self._server = server
        self._database = database
        self._issuer = issuer
        self._web = web
        self._clock = clock
        self._asking = threading.Semaphore(_ASKING)

    def sign_in(self, request: SignedRequest) -> SignedIn:
        """A token that lives ten minutes and can't be renewed.

        Raises:
            InvalidToken: the request is not one that AWS and we accept, or was used before.
            IdentityNotMapped: nobody said what this identity may do.
            AwsBusy, PeerUnavailable: too many ask at once; AWS does not answer.
        """
        if not self._rules:
            raise IdentityNotMapped("No AWS identity is mapped here. An administrator sets STRONGROOM_AWS_ROLES.")
        try:
            accepted = aws_requests.accept(request, self._endpoints, self._server, self._clock())
            identity = self._ask(accepted)
            self._use_up(accepted)
        except RequestRefused as refused:
            _log.warning("auth.aws_refused", cause=str(refused))
            raise InvalidToken from None
        rule = next((rule for rule in self._rules if fnmatchcase(identity.arn, rule.arn)), None)
        if rule is None:
            raise IdentityNotMapped(f"{identity.arn} is not mapped. An administrator does it.", arn=identity.arn)
        ends = int(self._clock().timestamp()) + ACCESS_SECONDS
        credential = credential_id(KIND, ends, accepted.signature)
        principal = Principal(identity.principal, identity.name, credential, grants=rule.grants, role=rule.role)
        return SignedIn(self._issuer.access_token(principal), ACCESS_SECONDS, principal)

    def clean(self) -> None:
        """Forgets the requests that are too old to be accepted anyway."""
        late = self._clock() - aws_requests.MAX_AGE
        with self._database.write() as connection:
            connection.execute(sa.delete(accepted_requests).where(accepted_requests.c.ends_at < late))

    def _ask(self, accepted: Accepted) -> Identity:
        if not self._asking.acquire(blocking=False):
            raise AwsBusy("Too many sign in at this moment. Try again.", retry_after=1)
        try:
            status, body = self._web.post(accepted.endpoint.url, accepted.headers, aws_requests.BODY.encode())
        finally:
            self._asking.release()
        if status >= 500 or status == 429:
            raise PeerUnavailable(f"{accepted.endpoint.host} answered {status}. Try again.")
        if status != 200:
            raise RequestRefused(f"{accepted.endpoint.host} answered {status}")
        return identity_of(body)

    def _use_up(self, accepted: Accepted) -> None:
        """Only what AWS found good is kept, so that strangers can't fill the table. Of two at once one is the first."""
        row = {"signature": accepted.signature, "ends_at": accepted.ends_at}
        try:
            with self._database.write() as connection:
                connection.execute(sa.insert(accepted_requests).values(row))
        except sa.exc.IntegrityError:
            raise RequestRefused("used before") from None


def identity_of(answer: bytes) -> Identity:
    """Who signed, from STS's answer. Raises RequestRefused if it names nobody that we know how to call."""
    try:
        root = fromstring(answer, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        raise RequestRefused("the answer is not XML") from None
    result = f"{_XML}GetCallerIdentityResult"
    arn = root.findtext(f"{result}/{_XML}Arn") or ""
    found = _ARN.fullmatch(arn)
    if root.tag != f"{_XML}GetCallerIdentityResponse" or found is None:
        raise RequestRefused("the answer names nobody")
    account, kind, name = found["account"], found["kind"], found["name"]
    if root.findtext(f"{result}/{_XML}Account") != account:
        raise RequestRefused("the answer names two accounts")
    if kind == "assumed-role":
        kind, name = "role", name.partition("/")[0]
    return Identity(account, kind, name, f"arn:{found['partition']}:iam::{account}:{kind}/{name}")
