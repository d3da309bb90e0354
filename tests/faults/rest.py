"""A caller over REST who makes each request once: nothing is tried again, and no failure is hidden."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

# Longer than anything takes but a part that stands still.
_SECONDS = 15.0


class Failed(Exception):
    """A request that was answered with an error, or not at all: then `status` is 0."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(f"{status} {reason}: {text}")
        self.status = status
        self.reason = reason

    @property
    def ambiguous(self) -> bool:
        """Whether what was asked for may have been done."""
        return self.status == 0 or self.status >= 500


class Rest:
    """One connection at a time, with one credential. For one thread."""

    def __init__(self, url: str, key: str) -> None:
        self._host = urlsplit(url).netloc
        self._headers = {"x-api-key": key} if key else {}
        self._connection: http.client.HTTPConnection | None = None

    def call(self, verb: str, path: str, body: Any = None) -> Any:
        """The answer: JSON decoded, anything else as bytes. A body of bytes is sent as it is. Raises Failed."""
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, timeout=_SECONDS)
        try:
            self._connection.request(verb, path, data, self._headers | {"content-type": kind})
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Failed(0, type(error).__name__, str(error)) from None
        return _judged(answer, content)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _judged(answer: http.client.HTTPResponse, content: bytes) -> Any:
    kind = answer.getheader("content-type") or ""
    decoded = json.loads(content or b"null") if "json" in kind else content
    if answer.status >= 400:
        described = kind == "application/problem+json" and isinstance(decoded, dict)
        reason = decoded["reason"] if described else f"undocumented {kind}"
        raise Failed(answer.status, reason, decoded["detail"] if described else content[:200].decode(errors="replace"))
    return decoded
