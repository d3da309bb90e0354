"""Signing keys: they rotate, on request and by the calendar, on one replica, and go when nothing needs them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import jwt
import pytest

from services.auth.bootstrap import _MIGRATIONS
from services.auth.envelope import Envelope
from services.auth.key_service import remote_envelope
from services.auth.signing_keys import RETIRING, RotationPending, SigningKeys
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.tokens import ServiceIdentity
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, TestClock, installation, reason_of

DELAY = timedelta(seconds=90)
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def envelope(installed: Installation) -> Iterator[Envelope]:
    identity = ServiceIdentity.load("auth", installed.folder / "keys")
    channel = service_channel(installed.secrets_address, "secrets", identity)
    yield remote_envelope(channel)
    channel.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url, service="auth", migrations=_MIGRATIONS)
    yield opened
    opened.close()


def states(keys: SigningKeys) -> list[str]:
    return [shown.state for shown in keys.published()]


def test_a_new_key_is_published_first_then_signs_and_the_old_one_retires(
    database: Database, envelope: Envelope
) -> None:
    clock = TestClock()
    keys = SigningKeys(database, envelope, clock, DELAY)
    keys.load()
    old = keys.current()
    new = keys.rotate()
    assert states(keys) == ["published", "signing"]
    assert (keys.current(), new.key.signs_from - new.key.created_at) == (old, DELAY)
    clock.ahead = DELAY - SECOND
    assert keys.current() is old
    clock.ahead = DELAY + SECOND
    assert keys.current().kid == new.key.kid
    assert states(keys) == ["signing", "retiring"]
    clock.ahead = DELAY + RETIRING - SECOND
    assert keys.public_key(old.kid) is not None, "its last token may still live"
    clock.ahead = DELAY + RETIRING + SECOND
    assert states(keys) == ["signing"]
    assert keys.public_key(old.kid) is None


def test_a_key_that_nothing_needs_is_deleted(database: Database, envelope: Envelope) -> None:
    clock = TestClock()
    keys = SigningKeys(database, envelope, clock, DELAY)
    keys.load()
    old = keys.current()
    keys.rotate()
    clock.ahead = DELAY + RETIRING + SECOND
    keys.maintain()
    assert old.kid in {row.kid for row in keys._rows()}, "a replica's clock may be behind"
    clock.ahead = DELAY + 3 * RETIRING
    keys.maintain()
    assert [row.generation for row in keys._rows()] == [2]
    restarted = SigningKeys(database, envelope, clock, DELAY)
    restarted.load()
    assert restarted.current().kid == keys.current().kid


def test_one_rotation_at_a_time(database: Database, envelope: Envelope) -> None:
    clock = TestClock()
    keys = SigningKeys(database, envelope, clock, DELAY)
    keys.load()
    keys.rotate()
    with pytest.raises(RotationPending, match="rotate again afterwards"):
        keys.rotate()
    clock.ahead = DELAY + SECOND
    assert keys.rotate().state == "published"


@pytest.mark.parametrize("how", ["by request", "by the calendar"])
def test_of_replicas_that_rotate_together_one_does(database: Database, envelope: Envelope, how: str) -> None:
    clock = TestClock()
    replicas = [SigningKeys(database, envelope, clock, DELAY, timedelta(days=90)) for _ in range(4)]
    for replica in replicas:
        replica.load()
    before = replicas[0].current().kid
    if how == "by the calendar":
        clock.ahead = timedelta(days=90) - timedelta(minutes=1)
        replicas[0].maintain()
        assert len(replicas[0].published()) == 1, "it is not yet time"
        clock.ahead = timedelta(days=90, minutes=1)

    def rotate(replica: SigningKeys) -> int:
        if how == "by the calendar":
            replica.maintain()
            return 0
        try:
            replica.rotate()
        except RotationPending:
            return 0
        return 1

    with ThreadPoolExecutor(4) as threads:
        winners = sum(threads.map(rotate, replicas))
    assert winners == (1 if how == "by request" else 0)
    for replica in replicas:
        replica.load()
    assert {tuple(shown.key.kid for shown in replica.published()) for replica in replicas} == {
        (replicas[0].published()[0].key.kid, before)
    }


def test_a_rotation_that_fails_stops_nobody(database: Database, envelope: Envelope) -> None:
    clock = TestClock()
    SigningKeys(database, envelope, clock).load()

    def broken(_value: bytes, _context: str) -> bytes:
        raise ConnectionError("the key service is away")

    keys = SigningKeys(database, Envelope(broken, envelope.decrypt), clock, DELAY, timedelta(days=1))
    clock.ahead = timedelta(days=2)
    keys.maintain()
    assert states(keys) == ["signing"]


@pytest.mark.row("S2.6")
def test_administrators_rotate_and_see_the_keys(installed: Installation) -> None:
    with installed.auth(database="rotating") as auth:
        token = auth.call(BOOTSTRAP_KEY, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
        new = auth.call(BOOTSTRAP_KEY, "TokenService", "RotateSigningKey", pb.RotateSigningKeyRequest()).signing_key
        listed = auth.call(BOOTSTRAP_KEY, "TokenService", "ListSigningKeys", pb.ListSigningKeysRequest()).signing_keys
        assert [key.state for key in listed] == ["published", "signing"]
        assert (listed[0], listed[0].HasField("published_until")) == (new, False)
        assert listed[1].published_until.seconds - new.signs_from.seconds == 660
        assert {key.kid for key in _key_set(auth).keys} == {key.kid for key in listed}
        with pytest.raises(grpc.RpcError) as caught:
            auth.call(BOOTSTRAP_KEY, "TokenService", "RotateSigningKey", pb.RotateSigningKeyRequest())
        assert reason_of(caught.value) == "SIGNING_KEY_ROTATION_PENDING"
        with installed.auth(database="rotating") as replica:
            assert _name(replica, token) == "administrator"
            installed.clock.ahead = DELAY + SECOND
            try:
                later = replica.call(BOOTSTRAP_KEY, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
                assert jwt.get_unverified_header(later)["kid"] == new.kid
                for running in (auth, replica):
                    assert _name(running, token) == _name(running, later) == "administrator"
            finally:
                installed.clock.ahead = timedelta()


def test_others_neither_see_nor_rotate_them(installed: Installation) -> None:
    with installed.auth() as auth:
        made = auth.create(permission_set="prefect_workflows")
        for method, request in (
            ("ListSigningKeys", pb.ListSigningKeysRequest()),
            ("RotateSigningKey", pb.RotateSigningKeyRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                auth.call(made.key, "TokenService", method, request)
            assert reason_of(caught.value) == "PERMISSION_MISSING"


@pytest.mark.row("S2.6")
def test_discovery_names_the_issuer_of_the_tokens(installed: Installation) -> None:
    url = "https://strongroom.example.com"
    with installed.auth(database="public", public_url=url) as auth:
        found = tokens_pb2_grpc.TokenServiceStub(auth.channel).GetDiscovery(pb.GetDiscoveryRequest())
        assert (found.issuer, found.jwks_uri) == (url, f"{url}/.well-known/jwks.json")
        assert list(found.id_token_signing_alg_values_supported) == ["ES256"]
        token = auth.call(BOOTSTRAP_KEY, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
        assert jwt.decode(token, options={"verify_signature": False})["iss"] == url
        assert _name(auth, token) == "administrator"
    with installed.auth(database="public", public_url="https://moved.example.com") as moved:
        with pytest.raises(grpc.RpcError) as caught:
            _name(moved, token)
        assert reason_of(caught.value) == "CREDENTIAL_INVALID"
        # Whoever has the key gets another: nobody is locked out.
        again = moved.call(BOOTSTRAP_KEY, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
        assert _name(moved, again) == "administrator"
    with installed.auth() as nowhere, pytest.raises(grpc.RpcError) as caught:
        tokens_pb2_grpc.TokenServiceStub(nowhere.channel).GetDiscovery(pb.GetDiscoveryRequest())
    assert reason_of(caught.value) == "PUBLIC_URL_UNSET"


def _key_set(auth: Auth) -> pb.GetKeySetResponse:
    answer = tokens_pb2_grpc.TokenServiceStub(auth.channel).GetKeySet(pb.GetKeySetRequest())
    assert isinstance(answer, pb.GetKeySetResponse)
    return answer


def _name(auth: Auth, token: str) -> str:
    metadata = [("authorization", f"Bearer {token}")]
    return str(tokens_pb2_grpc.TokenServiceStub(auth.channel).GetCaller(pb.GetCallerRequest(), metadata=metadata).name)
