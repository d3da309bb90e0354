"""A client that is its AWS identity: it signs in with the machine's own credentials, again before a token ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from strongroom import Client
from strongroom.errors import Unauthenticated
from strongroom.session import AccessToken, Renewing
from tests.aws import ANYBODY, REGION, assume_role, moto
from tests.stack import RunningStack, Stack

ROLE = "arn:aws:iam::123456789012:role/trainer"


@dataclass(frozen=True)
class Cloud:
    """An installation that trusts a role, an STS, and credentials of the role by their variables."""

    stack: Stack
    sts: str
    credentials: dict[str, str]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder: Path = tmp_path_factory.mktemp("aws")
    (folder / "roles.yaml").write_text(yaml.safe_dump([{"arn": ROLE, "permission_set": "read_only"}]))
    with moto() as sts:
        running = RunningStack(
            folder / "data",
            STRONGROOM_AWS_ROLES=str(folder / "roles.yaml"),
            STRONGROOM_AWS_STS_ENDPOINT=sts,
            STRONGROOM_RATE_LIMIT="off",
            **ANYBODY,
        )
        with running as stack:
            yield Cloud(stack, sts, assume_role(sts, ROLE))


@pytest.mark.row("S3.9")
def test_a_client_acts_as_the_role_of_its_machine(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.credentials.items():
        monkeypatch.setenv(name, value)
    with Client(cloud.stack.url) as client:
        client.tokens.act_as_aws(REGION, endpoint=cloud.sts)
        assert client.tokens.caller().principal == "aws:123456789012/role/trainer"
        assert list(client.models.list()) == []
        with pytest.raises(Unauthenticated):
            client.tokens.act_as_aws(REGION, endpoint=cloud.sts, server="https://elsewhere")


def test_a_token_is_got_anew_before_it_ends() -> None:
    now = 1000.0
    got: list[AccessToken] = []

    def get() -> AccessToken:
        got.append(AccessToken(f"token-{len(got)}", 600))
        return got[-1]

    token = Renewing(get, clock=lambda: now)
    assert token.access_token() == "token-0"
    now += 479
    assert token.access_token() == "token-0"
    now += 1
    assert token.access_token() == "token-1"
    assert "token-0" not in repr(got[0])
