"""Sign-in with AWS identities. moto plays STS, with its verification of signatures switched on: it recomputes them from
the secrets it gave out, as AWS does, and refuses what was altered. What it does not do, and AWS does: look at the date
and at the region of a signature. Both are refused before, by us; the tests of those need no STS.
"""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import grpc
import hypothesis
import jwt
import pytest
import sqlalchemy as sa
import yaml
from hypothesis import strategies as st

from services.auth import aws_requests
from services.auth.aws_sign_in import AwsSignIn, identity_of
from services.auth.bootstrap import _MIGRATIONS
from services.auth.outbound import Outbound
from services.auth.tables import aws_requests as accepted
from services.auth.trust_files import load_aws_rules
from services.shared.database import Database
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from strongroom.aws import signed_caller_identity
from tests.auth_installation import Auth, Installation, TestClock, installation, reason_of
from tests.aws import ANYBODY, REGION, moto, verify_signatures

SERVER = "https://strongroom.example.com"
ACCOUNT = "123456789012"
RULES = [
    {"arn": f"arn:aws:iam::{ACCOUNT}:role/trainer", "permission_set": "training_pipeline"},
    {"arn": f"arn:aws:iam::{ACCOUNT}:user/ann", "role": "viewer"},
]


@pytest.fixture(scope="module")
def sts() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture(scope="module")
def credentials(sts: str) -> dict[str, dict[str, str]]:
    """Of a user, and of two roles in a session, by their names; from then on moto verifies signatures."""
    anybody = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
    iam = boto3.client("iam", endpoint_url=sts, **anybody)
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    found = {"ann": _environment(key["AccessKeyId"], key["SecretAccessKey"])}
    for role in ("trainer", "stranger"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}", Path="/teams/")
        given = boto3.client("sts", endpoint_url=sts, **anybody).assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="trainer"
        )["Credentials"]
        found[role] = _environment(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    verify_signatures(sts)
    return found


def _environment(key_id: str, secret: str, token: str = "") -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def settings(installed: Installation, sts: str) -> dict[str, Any]:
    file = installed.folder / "aws.yaml"
    file.write_text(yaml.safe_dump(RULES))
    return {"aws_roles": file, "aws_sts_endpoint": sts, "public_url": SERVER}


@pytest.fixture(scope="module")
def auth(installed: Installation, settings: dict[str, Any]) -> Iterator[Auth]:
    with installed.auth(**settings) as running:
        yield running


@pytest.fixture
def sign(sts: str, credentials: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Any:
    def signed(who: str = "trainer", server: str = SERVER) -> dict[str, Any]:
        for name, value in credentials[who].items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        return signed_caller_identity(server, REGION, sts)

    return signed


def sign_in(auth: Auth, request: dict[str, Any]) -> pb.SignInWithAwsResponse:
    answer = tokens_pb2_grpc.TokenServiceStub(auth.channel).SignInWithAws(pb.SignInWithAwsRequest(**request))
    assert isinstance(answer, pb.SignInWithAwsResponse)
    return answer


def refusal(auth: Auth, request: dict[str, Any]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        sign_in(auth, request)
    return reason_of(caught.value)


def altered(request: dict[str, Any], **headers: str | None) -> dict[str, Any]:
    """The request with headers replaced, added or, if None, left out; without regard to their case."""
    names = {name.lower().replace("_", "-") for name in headers}
    kept = {name: value for name, value in request["headers"].items() if name.lower() not in names}
    added = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    return {**request, "headers": {**kept, **added}}


@pytest.mark.row("S3.9")
def test_a_role_signs_in_as_itself_whatever_its_session_is_called(auth: Auth, sign: Any) -> None:
    done = sign_in(auth, sign("trainer"))
    assert (done.principal, done.token_type, done.expires_in) == (f"aws:{ACCOUNT}/role/trainer", "Bearer", 600)
    metadata = [("authorization", f"Bearer {done.access_token}")]
    stub = tokens_pb2_grpc.TokenServiceStub(auth.channel)
    who = stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
    assert who.principal == done.principal
    assert "ml.train" in who.grants[0].permissions
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateToken(pb.CreateTokenRequest(), metadata=metadata)
    assert reason_of(caught.value) == "TOKEN_NOT_EXCHANGEABLE"
    claims = jwt.decode(done.access_token, options={"verify_signature": False})
    assert claims["cred"].startswith(f"aws:{claims['exp']}:")


@pytest.mark.row("S3.9")
def test_a_user_signs_in_with_a_role_of_ours(auth: Auth, sign: Any) -> None:
    done = sign_in(auth, sign("ann"))
    assert done.principal == f"aws:{ACCOUNT}/user/ann"
    assert jwt.decode(done.access_token, options={"verify_signature": False})["role"] == "viewer"


def test_a_name_of_a_session_maps_nobody(auth: Auth, sign: Any) -> None:
    """The session of `stranger` calls itself `trainer`."""
    assert refusal(auth, sign("stranger")) == "IDENTITY_NOT_MAPPED"


def test_without_a_mapping_aws_is_not_asked(installed: Installation, sts: str, sign: Any) -> None:
    with installed.auth(public_url=SERVER, aws_sts_endpoint=sts) as auth:
        assert refusal(auth, sign()) == "IDENTITY_NOT_MAPPED"


def test_a_request_is_good_once_in_every_replica(
    installed: Installation, auth: Auth, settings: dict[str, Any], sign: Any
) -> None:
    request = sign()
    sign_in(auth, request)
    assert refusal(auth, request) == "CREDENTIAL_INVALID"
    assert refusal(auth, altered(request, accept="*/*")) == "CREDENTIAL_INVALID"
    with installed.auth(**settings) as replica:
        assert refusal(replica, request) == "CREDENTIAL_INVALID"
        assert sign_in(replica, sign()).principal, "another of the same second is another"


def test_of_many_at_once_one_signs_in(installed: Installation, auth: Auth, settings: dict[str, Any], sign: Any) -> None:
    request, outcomes = sign(), []

    def attempt(running: Auth) -> None:
        try:
            outcomes.append(sign_in(running, request).principal)
        except grpc.RpcError as error:
            outcomes.append(reason_of(error))

    with installed.auth(**settings) as replica:
        threads = [threading.Thread(target=attempt, args=(running,)) for running in (auth, replica) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes.count(f"aws:{ACCOUNT}/role/trainer") == 1, outcomes
    assert set(outcomes) <= {f"aws:{ACCOUNT}/role/trainer", "CREDENTIAL_INVALID", "AWS_SIGN_IN_BUSY"}


def test_what_was_signed_for_another_server_is_worth_nothing(auth: Auth, sign: Any) -> None:
    other = sign(server="https://evil.example.com")
    assert refusal(auth, other) == "CREDENTIAL_INVALID"
    assert refusal(auth, altered(other, x_strongroom_server=SERVER)) == "CREDENTIAL_INVALID", "moto sees the change"
    unnamed = altered(sign(), x_strongroom_server=None)
    assert refusal(auth, unnamed) == "CREDENTIAL_INVALID"
    unsigned = sign()
    unsigned["headers"]["Authorization"] = unsigned["headers"]["Authorization"].replace(";x-strongroom-server", "")
    assert refusal(auth, unsigned) == "CREDENTIAL_INVALID"


def test_a_forged_signature_is_refused_by_sts(auth: Auth, sign: Any) -> None:
    request = sign()
    good = request["headers"]["Authorization"]
    forged = good[:-64] + ("0" * 64)
    assert refusal(auth, altered(request, authorization=forged)) == "CREDENTIAL_INVALID"
    assert sign_in(auth, request).principal, "what was refused is not used up"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"url": "http://169.254.169.254/latest/meta-data/"},
        {"url": "https://sts.amazonaws.com.evil.example.com/"},
        {"url": "https://sts.amazonaws.com@evil.example.com/"},
        {"url": "https://sts.amazonaws.com/"},
        {"url": "{sts}/../x"},
        {"url": "{sts}/?Action=GetCallerIdentity"},
        {"url": "{sts}/#x"},
        {"url": "{sts}//"},
        {"url": "{sts} "},
        {"body": ""},
        {"body": "Action=GetCallerIdentity&Version=2011-06-15&x=1"},
        {"body": "Action=GetSessionToken&Version=2011-06-15"},
    ],
    ids=str,
)
def test_only_the_one_question_is_asked_of_the_one_server(
    auth: Auth, sts: str, sign: Any, change: dict[str, str]
) -> None:
    changed = {name: value.replace("{sts}", sts) for name, value in change.items()}
    assert refusal(auth, {**sign(), **changed}) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example.com"},
        {"x_forwarded_host": "evil.example.com"},
        {"transfer_encoding": "chunked"},
        {"x_amz_target": "x"},
        {"content_type": "application/json"},
        {"content_type": None},
        {"x_amz_date": None},
        {"x_amz_date": "20200101T000000Z"},
        {"x_amz_date": "tomorrow"},
        {"authorization": None},
        {"authorization": "Bearer x"},
        {"x_strongroom_server": f"{SERVER}\r\nx-evil: 1"},
        {"x_amz_security_token": "a\x00b"},
        {"x_amz_security_token": "é"},
    ],
    ids=str,
)
def test_headers_are_those_of_the_allow_list_and_all_signed(
    auth: Auth, sign: Any, headers: dict[str, str | None]
) -> None:
    assert refusal(auth, altered(sign("ann"), **headers)) == "CREDENTIAL_INVALID"


def test_a_header_that_is_there_twice_is_refused(auth: Auth, sign: Any) -> None:
    request = sign()
    request["headers"]["x-Strongroom-server"] = SERVER
    assert refusal(auth, request) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_request_is_good_for_five_minutes(installed: Installation, auth: Auth, sign: Any, minutes: int) -> None:
    request = sign()
    installed.clock.ahead = timedelta(minutes=minutes)
    try:
        assert refusal(auth, request) == "CREDENTIAL_INVALID"
    finally:
        installed.clock.ahead = timedelta()


def test_while_sts_does_not_answer_nobody_is_called_a_forger(installed: Installation, settings: dict[str, Any]) -> None:
    away = "http://127.0.0.1:9"
    with installed.auth(**{**settings, "aws_sts_endpoint": away}) as auth, pytest.MonkeyPatch.context() as patch:
        for name, value in ANYBODY.items():
            patch.setenv(name, value)
        request = signed_caller_identity(SERVER, REGION, away)
        assert refusal(auth, request) == "IDENTITY_PROVIDER_UNAVAILABLE"


def test_regions_are_pinned(sign: Any) -> None:
    allowed = aws_requests.endpoints("eu-west-1, cn-north-1", "")
    assert set(allowed) == {
        "https://sts.amazonaws.com",
        "https://sts.eu-west-1.amazonaws.com",
        "https://sts.cn-north-1.amazonaws.com.cn",
    }
    sign("trainer")  # its credentials are in the environment now
    now = datetime.now(UTC)

    def accepted(region: str, url: str = "") -> bool:
        made = signed_caller_identity(SERVER, region)
        request = aws_requests.SignedRequest(made["method"], url or made["url"], made["headers"], made["body"])
        try:
            aws_requests.accept(request, allowed, SERVER, now)
        except aws_requests.RequestRefused:
            return False
        return True

    assert accepted("")
    assert accepted("eu-west-1")
    assert accepted("cn-north-1")
    assert not accepted("us-west-2")
    assert not accepted("eu-west-1", "https://sts.amazonaws.com/"), "another host was signed"
    for wrong in ("evil", "eu-west-1.evil.com/", "../x", "EU-WEST-1"):
        with pytest.raises(ValueError, match="is no region"):
            aws_requests.endpoints(wrong, "")
    with pytest.raises(ValueError, match="https"):
        aws_requests.endpoints("", "http://sts.example.com")


def answer(arn: str, account: str = ACCOUNT, before: str = "") -> bytes:
    return (
        f'{before}<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>{arn}</Arn><UserId>x</UserId><Account>{account}</Account>"
        "</GetCallerIdentityResult></GetCallerIdentityResponse>"
    ).encode()


def test_answers_are_read_strictly() -> None:
    assert identity_of(answer(f"arn:aws-us-gov:sts::{ACCOUNT}:assumed-role/a/b")).arn == (
        f"arn:aws-us-gov:iam::{ACCOUNT}:role/a"
    )
    assert identity_of(answer(f"arn:aws:iam::{ACCOUNT}:user/x/ann")).principal == f"aws:{ACCOUNT}/user/x/ann"
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    for wrong in (
        answer(f"arn:aws:iam::{ACCOUNT}:root"),
        answer(f"arn:aws:iam::{ACCOUNT}:user/ann", account="210987654321"),
        answer("arn:aws:iam::*:user/ann"),
        answer(f"arn:aws:iam::{ACCOUNT}:user/ann", before=bomb),
        answer("&b;", before=bomb),
        answer("", before=""),
        b"<GetCallerIdentityResponse/>",
        b"{}",
        b"",
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b'<?xml version="1.0" encoding="utf-7"?><a/>',
        b"<a>" * 100_000,
    ):
        with pytest.raises(aws_requests.RequestRefused):
            identity_of(wrong)


@hypothesis.given(st.text(), st.text(), st.dictionaries(st.text(), st.text()), st.text(), st.binary())
def test_nothing_that_anybody_sends_is_an_error(
    method: str, url: str, headers: dict[str, str], body: str, answered: bytes
) -> None:
    now = datetime.now(UTC)
    request = aws_requests.SignedRequest(method, url, headers, body)
    with pytest.raises(aws_requests.RequestRefused):
        aws_requests.accept(request, aws_requests.endpoints("", ""), SERVER, now)
    known = aws_requests.SignedRequest("POST", "https://sts.amazonaws.com/", headers, aws_requests.BODY)
    with pytest.raises(aws_requests.RequestRefused):
        aws_requests.accept(known, aws_requests.endpoints("", ""), SERVER, now)
    with pytest.raises(aws_requests.RequestRefused):
        identity_of(answered)


@pytest.mark.parametrize(
    "arn",
    [
        "*",
        "arn:aws:iam::*:role/trainer",
        "arn:aws:iam::12345678901?:role/trainer",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/trainer/x",
        f"arn:aws:iam::{ACCOUNT}:root",
        f"arn:aws:iam::{ACCOUNT}:role/",
        f"arn:aws:iam::{ACCOUNT}:role/[a-z]",
    ],
)
def test_a_mapping_names_its_account(tmp_path: Path, arn: str) -> None:
    file = tmp_path / "aws.yaml"
    file.write_text(json.dumps([{"arn": f"arn:aws:iam::{ACCOUNT}:role/ml-*", "role": "researcher"}]))
    assert load_aws_rules(file)[0].grants
    file.write_text(json.dumps([{"arn": arn, "role": "researcher"}]))
    with pytest.raises(ValueError, match="arn"):
        load_aws_rules(file)


def test_used_requests_are_forgotten_when_their_age_refuses_them(tmp_path: Path) -> None:
    clock = TestClock()
    database = Database.open(f"sqlite:///{tmp_path}/strongroom.db", service="auth", migrations=_MIGRATIONS)
    made = AwsSignIn([], {}, SERVER, database, None, Outbound(), clock)  # type: ignore[arg-type] - it signs nobody in

    def used() -> int:
        with database.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(accepted)).scalar_one())

    with database.write() as connection:
        connection.execute(sa.insert(accepted).values(signature="0" * 64, ends_at=clock() + aws_requests.MAX_AGE))
    made.clean()
    assert used() == 1
    clock.ahead = 2 * aws_requests.MAX_AGE + timedelta(seconds=1)
    made.clean()
    assert used() == 0
    database.close()
