"""Mutual TLS between the parts: a service's certificate, and whose certificates it takes.

A certificate says which part somebody is, in a name that is the part's own (`models.strongroom.internal`), never in its
address; so it matters nothing where a part runs, and of an authority that makes certificates for others too only
the parts are let in. What the caller may do is said by its token all the same.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import structlog
from prometheus_client import Gauge

from services.shared.call import Call
from services.shared.errors import PermissionDenied
from strongroom.certificates import (
    GATEWAY,
    CertificateError,
    as_pem,
    name_of,
    part_named,
    read_certificates,
    read_pair,
    versions,
)

# Seconds between two looks at the files.
_LOOK_SECONDS = 1.0

_EXPIRES = Gauge(
    "strongroom_certificate_expires_seconds", "Until when this part's certificate is good, in seconds since 1970."
)

_log = structlog.get_logger()


class PeerUnknown(PermissionDenied):
    """The certificate is of no part, or of another than the token."""

    reason = "PEER_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("The certificate that was shown is not that of the part that calls.")


@dataclass(frozen=True)
class Material:
    """What a handshake needs, in PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes


class Certificates:
    """A part's `<name>.pem` and `ca.pem` in a folder, as they are now. Files that can't be used change nothing.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, folder: Path, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises CertificateError."""
        self._files = folder / f"{name}.pem", folder / "ca.pem"
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = versions(*self._files)
        self._looked = clock()
        self._material = self._read()

    def current(self) -> Material:
        """What is good now."""
        with self._lock:
            if self._clock() - self._looked >= _LOOK_SECONDS:
                self._looked = self._clock()
                self._look()
            return self._material

    def server_credentials(self) -> grpc.ServerCredentials:
        """Of a server that asks every caller for a certificate, and looks at the files again."""
        shown = self.current()

        def changed() -> Any:  # None if nothing has, which its type leaves out
            nonlocal shown
            now = self.current()
            if now is shown:
                return None
            shown = now
            return _configuration(now)

        return grpc.dynamic_ssl_server_credentials(_configuration(shown), changed, require_client_authentication=True)

    def _look(self) -> None:
        seen = versions(*self._files)
        if seen == self._seen:
            return
        try:
            self._material = self._read()
        except CertificateError as error:
            # Perhaps half of a change; whoever makes it is told once.
            if seen != self._seen:
                _log.warning("certificates can't be used, those before stay", error=str(error))
        else:
            _log.info("certificates read again")
        self._seen = seen

    def _read(self) -> Material:
        own, trusted = self._files
        pair = read_pair(own)
        _EXPIRES.set(pair.leaf.not_valid_after_utc.timestamp())
        return Material(pair.chain, pair.key, as_pem(read_certificates(trusted)))


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.authorities)


def secure_channel(address: str, part: str, material: Material, options: list[tuple[str, object]]) -> grpc.Channel:
    """A channel to a part, whoever answers at its address: somebody without the part's name is not spoken to."""
    credentials = grpc.ssl_channel_credentials(material.authorities, material.key, material.chain)
    return grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", name_of(part))])


def only_gateway(context: grpc.ServicerContext) -> None:
    """Raises PeerUnknown unless the gateway asks, as far as certificates tell who does."""
    if _is_encrypted(context) and _part(context) != GATEWAY:
        raise PeerUnknown


@contextmanager
def bind_to_certificate(call: Call) -> Iterator[None]:
    """The layer that lets in parts alone, and a service's token only with the certificate of the same service: a token
    or a key of it that was stolen is of no use without.
    """
    if _is_encrypted(call.context):
        part = _part(call.context)
        if part is None or (call.principal.service and call.principal.id != part):
            raise PeerUnknown
    yield


def _is_encrypted(context: grpc.ServicerContext) -> bool:
    return bytes(next(iter(context.auth_context().get("transport_security_type", ())), b"")) == b"ssl"


def _part(context: grpc.ServicerContext) -> str | None:
    """The part whose certificate was shown."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return next((part for name in names if (part := part_named(bytes(name).decode("ascii", "replace")))), None)
