"""What `strongroom up` asks its own gateway, as any client would."""

import http.client
import json


def health(host: str, port: int) -> tuple[int, str]:
    """Status of GET /health, and what it says is missing; 0 without an answer."""
    status, body = _get(host, port, "/health", {})
    try:
        return status, str(json.loads(body).get("detail", ""))
    except ValueError:
        return 0, "The gateway does not answer."


def is_refused(host: str, port: int, api_key: str) -> bool:
    """Whether the gateway answers, and says that the key is none."""
    return _get(host, port, "/api/v1/caller", {"X-API-Key": api_key})[0] == http.client.UNAUTHORIZED


def _get(host: str, port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body; 0 without an answer."""
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=2)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException, ValueError):
        return 0, b""
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """An address under which a listener on every address is reached."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name to look up, nothing is bound
