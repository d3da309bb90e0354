"""Requests to other servers: key sets of OpenID providers, and AWS. Never to an address that a caller chose."""

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import urllib3

from services.shared.errors import Unavailable

# Seconds for all of an answer.
_SECONDS = 5.0
_MAX_BYTES = 256 << 10
_PIECE = 16 << 10
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class PeerUnavailable(Unavailable):
    """The other server does not answer as it should."""

    reason = "IDENTITY_PROVIDER_UNAVAILABLE"


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine, literally."""
    return urlsplit(url).hostname in _LOOPBACK


def check_url(url: str) -> str:
    """The URL, if it is one that may be asked: https, or http on this machine; without user, query and fragment.

    Raises ValueError.
    """
    parts = urlsplit(url)
    plain = not (parts.username or parts.password or parts.query or parts.fragment) and url.isprintable()
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))
    if not (plain and secure and parts.hostname and " " not in url):
        raise ValueError(f"{url} must be an https URL without user, query and fragment")
    return url


class Outbound:
    """HTTP with certificates checked, without redirects, bounded in time and size."""

    def __init__(self) -> None:
        timeout = urllib3.Timeout(connect=2.0, read=_SECONDS)
        self._pool = urllib3.PoolManager(num_pools=16, maxsize=4, timeout=timeout, retries=False)

    def close(self) -> None:
        self._pool.clear()

    def get(self, url: str) -> bytes:
        """The body of a 200. Raises PeerUnavailable."""
        status, body = self._ask("GET", url, {"accept": "application/json"}, None)
        if status != 200:
            raise PeerUnavailable(f"{_host(url)} answered {status}. Try again.")
        return body

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body, whatever the status. Raises PeerUnavailable without an answer."""
        return self._ask("POST", url, headers, body)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        deadline = time.monotonic() + _SECONDS
        try:
            answer = self._pool.request(
                method, url, headers=dict(headers), body=body, redirect=False, preload_content=False
            )
            try:
                content = b""
                # What has come, without waiting for more; not decoded: what is small on the wire stays small.
                while piece := answer.read1(_PIECE, decode_content=False):
                    content += piece
                    if len(content) > _MAX_BYTES or time.monotonic() > deadline:
                        answer.close()
                        raise PeerUnavailable(f"{_host(url)} sends too much, or too slowly.")
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise PeerUnavailable(f"{_host(url)} does not answer ({type(error).__name__}). Try again.") from None
        return answer.status, content


def _host(url: str) -> str:
    return str(urlsplit(url).netloc)
