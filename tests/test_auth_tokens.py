"""Access tokens, the keys that sign them, and revocations."""

from collections.abc import Iterator
from datetime import timedelta
from threading import Thread

import grpc
import jwt
import pytest

from services.auth.permission_sets import PERMISSION_SETS
from services.shared.channels import IDENTITY_HEADER, service_channel
from services.shared.tokens import ACCESS_AUDIENCE, ISSUER, ServiceIdentity
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation, reason_of


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth() as running:
        yield running


def _exchange(auth: Auth, key: str) -> pb.CreateTokenResponse:
    answer = auth.call(key, "TokenService", "CreateToken", pb.CreateTokenRequest())
    assert isinstance(answer, pb.CreateTokenResponse)
    return answer


def _key_set(auth: Auth) -> pb.GetKeySetResponse:
    answer = tokens_pb2_grpc.TokenServiceStub(auth.channel).GetKeySet(pb.GetKeySetRequest())
    assert isinstance(answer, pb.GetKeySetResponse)
    return answer


def test_an_access_token_is_verified_with_the_published_keys(auth: Auth) -> None:
    made = auth.create(name="reader", permission_set="read_only")
    answer = _exchange(auth, made.key)
    assert (answer.token_type, answer.expires_in) == ("Bearer", 600)
    [published] = _key_set(auth).keys
    key = jwt.PyJWK({field.name: value for field, value in published.ListFields()})
    claims = jwt.decode(answer.access_token, key, algorithms=["ES256"], audience=ACCESS_AUDIENCE, issuer=ISSUER)
    header = jwt.get_unverified_header(answer.access_token)
    assert (header["typ"], header["kid"]) == ("at+jwt", published.kid)
    assert (claims["sub"], claims["cred"], claims["name"]) == (f"key:{made.id}", auth.credential(made.key), "reader")
    assert claims["grants"] == [["allow", list(PERMISSION_SETS["read_only"].permissions), ["**"]]]
    assert claims["exp"] - claims["iat"] == 600


@pytest.mark.parametrize("header", ["authorization", IDENTITY_HEADER])
def test_an_access_token_does_not_renew_itself(auth: Auth, header: str) -> None:
    token = _exchange(auth, BOOTSTRAP_KEY).access_token
    value = f"Bearer {token}" if header == "authorization" else token
    stub = tokens_pb2_grpc.TokenServiceStub(auth.channel)
    assert stub.GetCaller(pb.GetCallerRequest(), metadata=[(header, value)]).name == "administrator"
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateToken(pb.CreateTokenRequest(), metadata=[(header, value)])
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(caught.value) == "TOKEN_NOT_EXCHANGEABLE"


def test_an_access_token_ends_with_its_key(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only", expires_in_days=1)
    installed.clock.ahead = timedelta(days=1, minutes=-1)
    try:
        assert 0 < _exchange(auth, made.key).expires_in <= 60
    finally:
        installed.clock.ahead = timedelta()


@pytest.mark.row("S2.5")
def test_tokens_of_a_revoked_key_are_refused(auth: Auth) -> None:
    made = auth.create(permission_set="full_access")
    token = _exchange(auth, made.key).access_token
    stub = tokens_pb2_grpc.TokenServiceStub(auth.channel)
    metadata = [("authorization", f"Bearer {token}")]
    assert stub.GetCaller(pb.GetCallerRequest(), metadata=metadata).principal == f"key:{made.id}"
    auth.revoke(made.id)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_caller_learns_who_it_is(auth: Auth) -> None:
    made = auth.create(name="me", permission_set="predict", scopes=["managers/a/**"])
    answer = auth.call(made.key, "TokenService", "GetCaller", pb.GetCallerRequest())
    assert (answer.principal, answer.name, answer.key_prefix) == (f"key:{made.id}", "me", made.key_prefix)
    [grant] = answer.grants
    assert (grant.effect, list(grant.permissions), list(grant.resources)) == (
        "allow",
        list(PERMISSION_SETS["predict"].permissions),
        ["managers/a/**"],
    )


def test_services_learn_what_was_revoked(installed: Installation, auth: Auth) -> None:
    early, late = auth.create(permission_set="read_only"), auth.create(permission_set="read_only")
    credentials = [auth.credential(made.key) for made in (early, late)]
    auth.revoke(early.id)
    since = auth.revoke(late.id).revoked_at
    identity = ServiceIdentity.load("models", installed.folder / "keys")
    with service_channel(auth.address, "auth", identity) as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        recent = set(stub.ListRevocations(pb.ListRevocationsRequest()).credential_ids)
        assert set(credentials) <= recent
        assert list(stub.ListRevocations(pb.ListRevocationsRequest(since=since)).credential_ids) == credentials[1:]
    with pytest.raises(grpc.RpcError) as caught:
        auth.call(BOOTSTRAP_KEY, "TokenService", "ListRevocations", pb.ListRevocationsRequest())
    assert reason_of(caught.value) == "SERVICE_ONLY"


def test_replicas_that_start_together_agree_on_pepper_and_signing_key(installed: Installation) -> None:
    answers: list[tuple[str, bool]] = []

    def replica() -> None:
        with installed.auth(database="together") as auth:
            accepted = auth.check_key(BOOTSTRAP_KEY).HasField("ok_response")
            answers.append((_key_set(auth).keys[0].kid, accepted))

    threads = [Thread(target=replica) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert len(set(answers)) == 1
    assert answers[0][1]


def test_a_restart_keeps_the_signing_key_and_the_private_part_is_not_stored_in_clear(installed: Installation) -> None:
    with installed.auth(database="again") as first:
        before = _key_set(first)
        token = _exchange(first, BOOTSTRAP_KEY).access_token
    with installed.auth(database="again") as second:
        assert _key_set(second) == before
        stub = tokens_pb2_grpc.TokenServiceStub(second.channel)
        caller = stub.GetCaller(pb.GetCallerRequest(), metadata=[("authorization", f"Bearer {token}")])
        assert caller.name == "administrator"
        # The object identifier of P-256 stands in every PKCS #8 key of that curve.
        assert bytes.fromhex("2a8648ce3d030107") not in second.stored_bytes()


def test_a_forged_token_is_refused(auth: Auth) -> None:
    head, body, signature = _exchange(auth, BOOTSTRAP_KEY).access_token.split(".")
    stub = tokens_pb2_grpc.TokenServiceStub(auth.channel)
    for forged in (f"{head}.{body}.{signature[:-8]}AAAAAAAA", f"{head}.{body}.", "nonsense"):
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetCaller(pb.GetCallerRequest(), metadata=[("authorization", f"Bearer {forged}")])
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
