"""Signed `GetCallerIdentity` requests, and what of them may be sent on to AWS. Pure rules; nothing is sent here.

Signature Version 4: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from services.auth.outbound import check_url

SERVER_HEADER = "x-strongroom-server"
BODY = "Action=GetCallerIdentity&Version=2011-06-15"
# Between its signature and its arrival; AWS allows as much.
MAX_AGE = timedelta(minutes=5)

_GLOBAL_REGION = "us-east-1"
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[A-Z0-9]{4,128}/(?P<date>\d{8})/(?P<region>[a-z0-9-]{1,32})/sts/aws4_request,"
    r" ?SignedHeaders=(?P<signed>[a-z0-9;-]{1,512}), ?Signature=(?P<signature>[0-9a-f]{64})"
)
# A signature is a function of the request and the second: without it two programs of one identity would make the same.
NONCE_HEADER = "x-strongroom-nonce"
_SENT_ON = {"content-type", "host", "x-amz-date", "x-amz-security-token", SERVER_HEADER, NONCE_HEADER}
# What clients send without signing it, and AWS does not need.
_LEFT_OUT = {"accept", "content-length", "user-agent"}
_CONTENT_TYPE = re.compile(r"application/x-www-form-urlencoded(; ?charset=utf-8)?", re.IGNORECASE)
_VALUE = re.compile(r"[\x20-\x7e]*")


class RequestRefused(Exception):
    """Why a request is not sent on: for the log alone."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as somebody signed it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An STS: its URL with the slash, the host that a request names, and the region that it is signed for, if known."""

    url: str
    host: str
    region: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that may be sent on: only what its signature covers."""

    endpoint: Endpoint
    headers: Mapping[str, str] = field(repr=False)
    signature: str
    # From then on it is too old.
    ends_at: datetime


def endpoints(regions: str, override: str) -> dict[str, Endpoint]:
    """The STS that may be asked, by URL without the slash. Raises ValueError for what is no region and no URL."""
    if override:
        url = check_url(override).rstrip("/")
        return {url: Endpoint(f"{url}/", urlsplit(url).netloc, "")}
    found = [Endpoint("https://sts.amazonaws.com/", "sts.amazonaws.com", _GLOBAL_REGION)]
    for region in filter(None, (part.strip() for part in regions.split(","))):
        if not _REGION.fullmatch(region):
            raise ValueError(f"STRONGROOM_AWS_REGIONS: {region} is no region such as eu-west-1")
        host = f"sts.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
        found.append(Endpoint(f"https://{host}/", host, region))
    return {endpoint.url.rstrip("/"): endpoint for endpoint in found}


def accept(request: SignedRequest, allowed: Mapping[str, Endpoint], server: str, now: datetime) -> Accepted:
    """What may be sent on. Raises RequestRefused.

    The signature itself is AWS's affair; this makes sure that it was made for us, lately, for this one question.
    """
    # Looked up, not taken apart: where the request goes is never a matter of how we or others read a URL.
    endpoint = allowed.get(request.url.removesuffix("/"))
    if request.method != "POST" or endpoint is None or request.body != BODY:
        raise RequestRefused("method, URL or body")
    headers = _headers(request.headers)
    authorization = _AUTHORIZATION.fullmatch(headers.pop("authorization", ""))
    if authorization is None:
        raise RequestRefused("authorization")
    signed = authorization["signed"].split(";")
    if set(signed) != set(headers) or len(signed) != len(headers):
        raise RequestRefused("a header is not signed, or a signed one is missing")
    if headers.get(SERVER_HEADER) != server or headers.get("host") != endpoint.host:
        raise RequestRefused("signed for another server")
    if not _CONTENT_TYPE.fullmatch(headers.get("content-type", "")):
        raise RequestRefused("content type")
    signed_at = _signed_at(headers.get("x-amz-date", ""))
    if abs(now - signed_at) > MAX_AGE or authorization["date"] != f"{signed_at:%Y%m%d}":
        raise RequestRefused("date")
    if endpoint.region and authorization["region"] != endpoint.region:
        raise RequestRefused("region")
    sent = headers | {"authorization": authorization.group()}
    return Accepted(endpoint, sent, authorization["signature"], signed_at + MAX_AGE)


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    headers = {name.lower(): value for name, value in given.items()}
    if len(headers) < len(given) or not all(_VALUE.fullmatch(value) for value in headers.values()):
        raise RequestRefused("a header is there twice or has control characters")
    if unknown := set(headers) - _SENT_ON - _LEFT_OUT - {"authorization"}:
        raise RequestRefused(f"{len(unknown)} unknown headers")
    return {name: value for name, value in headers.items() if name not in _LEFT_OUT}


def _signed_at(date: str) -> datetime:
    try:
        return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise RequestRefused("date") from None
