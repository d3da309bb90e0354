"""What a service needs of auth to judge a token itself: the public keys, and which credentials were revoked."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import grpc
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, EllipticCurvePublicNumbers
from google.protobuf import timestamp_pb2
from jwt.utils import base64url_decode

from services.shared.channels import service_channel
from services.shared.errors import Unavailable
from services.shared.settings import ServiceSettings
from services.shared.tokens import ACCESS_SECONDS, ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc

# Seconds between two looks at auth's revocations: a verified token outlives its credential by no more.
_POLL_SECONDS = 5.0
# A key id nobody knows makes us ask auth again, but not more often than this: forged tokens must cost auth nothing.
_REFETCH_SECONDS = 1.0
_LIST_SECONDS = 10.0
_OVERLAP = timedelta(seconds=30)
# Keys that auth no longer publishes are trusted for no longer.
_KEYS_KEPT = timedelta(minutes=1)

_log = structlog.get_logger()


class Trust:
    """Auth's public keys and revocations, kept up to date in the background."""

    def __init__(self, channel: grpc.Channel, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._channel = channel
        self._auth = tokens_pb2_grpc.TokenServiceStub(channel)
        self._clock = clock
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._revoked: dict[str, datetime] = {}
        self._polled = datetime.min.replace(tzinfo=UTC)
        self._fetched = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="revocations", daemon=True)

    def start(self) -> None:
        """Begins to ask for revocations; a second time does nothing, because a service's start may be repeated."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._channel.close()

    def access_key(self, key_id: str) -> EllipticCurvePublicKey | None:
        """Auth's public key of that id, asked for when it is not known yet."""
        key = self._keys.get(key_id)
        return key if key is not None else self._refetch().get(key_id)

    def revoked(self, credential_id: str) -> bool:
        """Whether the credential was revoked, as far as auth told some seconds ago."""
        return credential_id in self._revoked

    def revoked_since(self, credential_id: str, moment: datetime) -> bool:
        """Whether the credential was revoked at the moment or later, however long ago that is: what tokens do not live
        long enough for is forgotten here, and auth is asked. Raises Unavailable.
        """
        if self.revoked(credential_id) or moment > self._clock() - timedelta(seconds=ACCESS_SECONDS):
            return self.revoked(credential_id)
        try:
            return credential_id in self._list(moment - _OVERLAP)
        except grpc.RpcError as error:
            _log.warning("auth does not answer, old revocations are not known", code=error.code().name)
            message = "The auth service does not answer. Try again."
            raise Unavailable(message, reason="DEPENDENCY_UNAVAILABLE") from None

    def _refetch(self) -> dict[str, EllipticCurvePublicKey]:
        """Raises Unavailable if auth does not answer: a token that can't be judged is not called a bad one."""
        with self._lock:
            if self._clock() - self._fetched >= timedelta(seconds=_REFETCH_SECONDS):
                try:
                    # Just started, auth may not have been there when this channel first tried.
                    keys = self._auth.GetKeySet(tokens_pb2.GetKeySetRequest(), timeout=2, wait_for_ready=True).keys
                except grpc.RpcError as error:
                    _log.warning("auth does not answer, so its keys are not known", code=error.code().name)
                    message = "The auth service does not answer. Try again."
                    raise Unavailable(message, reason="DEPENDENCY_UNAVAILABLE") from None
                self._keys = {key.kid: _public_key(key) for key in keys}
                self._fetched = self._clock()
            return self._keys

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self._fetch_revocations()
                if self._clock() - self._fetched >= _KEYS_KEPT:
                    self._refetch()
            except grpc.RpcError as error:
                _log.warning("auth does not answer, revocations are as old as the last answer", code=error.code().name)
            except Unavailable:
                pass  # the log has it, and the keys that are known still hold
            self._stop.wait(_POLL_SECONDS)

    def _fetch_revocations(self) -> None:
        now = self._clock()
        # A token lives ten minutes, so older revocations are of no use; the overlap allows for clocks that differ.
        since = max(self._polled, now - timedelta(seconds=ACCESS_SECONDS)) - _OVERLAP
        revoked = self._list(since)
        expired = now - timedelta(seconds=ACCESS_SECONDS) - _OVERLAP
        kept = {credential: seen for credential, seen in self._revoked.items() if seen > expired}
        self._revoked = kept | dict.fromkeys(revoked, now)
        self._polled = now

    def _list(self, since: datetime) -> Sequence[str]:
        request = tokens_pb2.ListRevocationsRequest(since=timestamp_pb2.Timestamp(seconds=int(since.timestamp())))
        return self._auth.ListRevocations(request, timeout=_LIST_SECONDS).credential_ids


def verifier_for(name: str, settings: ServiceSettings, identity: ServiceIdentity) -> tuple[TokenVerifier, Trust]:
    """A verifier that trusts auth's keys, and the trust it rests on, which the service starts and closes."""
    trust = Trust(service_channel(settings.auth_addr, "auth", identity))
    service_keys = load_service_keys(settings.identity_dir)
    return TokenVerifier(name, trust.access_key, service_keys, trust.revoked, issuer=settings.issuer), trust


def _public_key(key: tokens_pb2.JsonWebKey) -> EllipticCurvePublicKey:
    x, y = (int.from_bytes(base64url_decode(value), "big") for value in (key.x, key.y))
    return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
