"""`webhook`: a server of the user's is told the new value, and sets it where it belongs.

Every step is one POST of JSON, signed as Standard Webhooks has it (https://www.standardwebhooks.com, symmetric
signatures): `webhook-id`, `webhook-timestamp`, and `webhook-signature: v1,` with the HMAC-SHA256 of
`id.timestamp.body` in base64. The id is the same when a step is repeated, so the receiver can tell. Any answer but
2xx is a refusal.
"""

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from services.secrets.rotation.options import FieldName, OptionsInvalid, SecretName
from services.secrets.rotation.rotator import (
    Data,
    Rotation,
    Rotator,
    Surroundings,
    TargetRefuses,
    TargetUnavailable,
    text_field,
)
from services.secrets.rotation.targets import LOOPBACK
from services.secrets.rotation.values import ValuePolicy

# Seconds to connect, and for all of an answer, of which nothing but the status counts.
_CONNECT = 3.0
_SECONDS = 10.0
_PORTS = {"https": 443, "http": 80}


class WebhookOptions(ValuePolicy):
    """Whom to tell, and which fields get new values."""

    url: Annotated[str, StringConstraints(max_length=2048, pattern=r"^[\x21-\x7e]+$")]
    # The secret with the key, in its field `key`, that signs.
    signing_secret: SecretName
    fields: Annotated[tuple[FieldName, ...], Field(min_length=1, max_length=32)] = ("password",)


class Webhook(Rotator):
    """Whatever a server of the user's can set."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._randomness = surroundings.randomness
        self._clock = surroundings.clock
        self._targets = surroundings.targets
        # Certificates and names are checked.
        self._tls = ssl.create_default_context()

    def check(self, options: Data) -> frozenset[str]:
        chosen = WebhookOptions.of(options)
        self._check_target(chosen.url)
        return frozenset({chosen.signing_secret})

    def propose(self, rotation: Rotation) -> Data:
        options = WebhookOptions.of(rotation.options)
        return {**rotation.current, **{name: options.value(self._randomness) for name in options.fields}}

    def apply(self, rotation: Rotation, pending: Data) -> None:
        self._tell(rotation, "set", current=rotation.current, pending=pending)

    def test(self, rotation: Rotation, pending: Data) -> None:
        self._tell(rotation, "test", pending=pending)

    def rollback(self, rotation: Rotation, pending: Data | None) -> None:
        if pending is not None:
            self._tell(rotation, "rollback", current=rotation.current, pending=pending)

    def retire(self, rotation: Rotation, previous: Data) -> None:
        self._tell(rotation, "retire", current=rotation.current, previous=previous)

    def _check_target(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise OptionsInvalid("Option url: this is no URL.", option="url") from None
        host = parts.hostname or ""
        secure = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
        if not (secure and host) or parts.username or parts.password or parts.fragment:
            raise OptionsInvalid("Option url: an https URL without user and fragment.", option="url")
        self._targets.check(host, port)

    def _tell(self, rotation: Rotation, step: str, **values: Any) -> None:
        options = WebhookOptions.of(rotation.options)
        self._check_target(options.url)
        key = text_field(rotation.read(options.signing_secret), "key", options.signing_secret)
        now, message_id = self._clock(), f"{rotation.id}.{step}"
        data = {"rotation": rotation.id, "secret": rotation.secret, **values}
        body = json.dumps({"type": f"rotation.{step}", "timestamp": now.isoformat(), "data": data}).encode()
        timestamp = str(int(now.timestamp()))
        headers = {
            "content-type": "application/json",
            "user-agent": "strongroom-rotation",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(key, message_id, timestamp, body),
        }
        status = self._post(options.url, headers, body)
        if not 200 <= status < 300:
            failure = TargetUnavailable if status in (429, 502, 503, 504) else TargetRefuses
            raise failure(f"The webhook at {urlsplit(options.url).netloc} answered {step} with {status}.")

    def _post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """The status; redirects, which would go around the list of targets, are answers like others."""
        parts = urlsplit(url)
        host, path = str(parts.hostname), parts._replace(scheme="", netloc="").geturl() or "/"
        connection = (
            HTTPSConnection(host, parts.port, timeout=_CONNECT, context=self._tls)
            if parts.scheme == "https"
            else HTTPConnection(host, parts.port, timeout=_CONNECT)
        )
        try:
            connection.connect()
            connection.sock.settimeout(_SECONDS)
            # A timeout of the socket begins anew with every byte of a header that trickles in.
            watchdog = threading.Timer(_SECONDS, _cut, [connection.sock])
            watchdog.start()
            try:
                connection.request("POST", path, body, headers)
                return connection.getresponse().status
            finally:
                watchdog.cancel()
        except (OSError, HTTPException) as error:
            raise TargetUnavailable(
                f"The webhook at {parts.netloc} does not answer ({type(error).__name__})."
            ) from None
        finally:
            connection.close()


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def signature(key: str, message_id: str, timestamp: str, body: bytes) -> str:
    """As `webhook-signature` has it."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key.encode(), signed, hashlib.sha256)).decode()
