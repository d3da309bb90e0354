"""Root keys in a file, in OpenBao's transit engine and in AWS KMS: one behaviour, each on the real thing."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.secrets.root_keys.root_key import RootKey, RootKeyError, RootKeyUnavailable, WrongRootKey
from services.secrets.root_keys.source import RootKeySource, RootKeyUnknown
from strongroom.local.credentials import provide
from strongroom.local.environment import _owner
from strongroom.local.errors import StartError
from strongroom.local.layout import Layout
from tests import aws, openbao

pytestmark = pytest.mark.row("S4.6")


@dataclass(frozen=True)
class Transit:
    """An engine of a real OpenBao."""

    server: openbao.OpenBaoServer
    mount: str

    @property
    def place(self) -> str:
        """As fields of the configuration."""
        return f"kind: transit, endpoint: '{self.server.url}', mount: {self.mount}"


KEY = bytes(range(32))
KINDS = ("file", "transit", "aws-kms")


@pytest.fixture(scope="module")
def transit(openbao_server: openbao.OpenBaoServer) -> Transit:
    return Transit(openbao_server, openbao_server.transit())


@pytest.fixture(scope="module")
def kms() -> Iterator[tuple[str, str]]:
    """moto's URL and the id of a key."""
    with aws.moto() as url:
        yield url, aws.client("kms", url).create_key()["KeyMetadata"]["KeyId"]


def write_root_key(file: Path) -> None:
    file.touch(mode=0o600)
    file.write_bytes(base64.b64encode(os.urandom(32)))


@pytest.fixture
def source(tmp_path: Path, transit: Transit, kms: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> RootKeySource:
    """All kinds, each under its own name."""
    write_root_key(tmp_path / "root.key")
    for name, value in aws.ANYBODY.items():
        monkeypatch.setenv(name, value)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(f"{transit.server.root_token}\n")
    configuration = tmp_path / "kms.yaml"
    gone = "http://127.0.0.1:1"
    configuration.write_text(
        f"root_keys:\n"
        f"  transit: {{{transit.place}, key: strongroom, token: {{file: {token}}}}}\n"
        f"  transit-gone: {{kind: transit, endpoint: '{gone}', key: strongroom, token: {{file: {token}}}}}\n"
        f"  transit-other: {{{transit.place}, key: other, token: {{file: {token}}}}}\n"
        f"  aws-kms: {{kind: aws-kms, endpoint: '{kms[0]}', key: {kms[1]}, region: {aws.REGION}}}\n"
        f"  aws-kms-gone: {{kind: aws-kms, endpoint: '{gone}', key: {kms[1]}, region: {aws.REGION}}}\n"
        f"  aws-kms-other: {{kind: aws-kms, endpoint: '{kms[0]}', key: alias/none, region: {aws.REGION}}}\n"
    )
    return RootKeySource(tmp_path / "root.key", configuration)


@pytest.fixture(params=KINDS)
def root(request: pytest.FixtureRequest, source: RootKeySource) -> RootKey:
    return source.open(request.param)


def test_what_was_wrapped_is_unwrapped(root: RootKey) -> None:
    wrapped = root.wrap(KEY, "context")
    assert KEY not in wrapped
    assert root.unwrap(wrapped, "context") == KEY
    assert root.kind in KINDS
    assert root.place


def test_another_context_or_a_changed_byte_opens_nothing(root: RootKey) -> None:
    wrapped = root.wrap(KEY, "context")
    at = len(wrapped) - 10
    changed = wrapped[:at] + (b"A" if wrapped[at : at + 1] != b"A" else b"B") + wrapped[at + 1 :]
    for attempt in ((wrapped, "other"), (changed, "context"), (b"", "context"), (b"vault:v1:", "context")):
        with pytest.raises(WrongRootKey):
            root.unwrap(*attempt)


@pytest.mark.parametrize("name", ["transit-gone", "aws-kms-gone"])
def test_a_system_that_is_away_is_told_from_one_that_refuses(source: RootKeySource, name: str) -> None:
    with pytest.raises(RootKeyUnavailable):
        source.open(name).wrap(KEY, "context")


@pytest.mark.parametrize("name", ["aws-kms-other", "transit-other"])
def test_a_key_that_is_not_there_is_an_error_that_names_it(
    source: RootKeySource, transit: Transit, tmp_path: Path, name: str
) -> None:
    """OpenBao makes a key that is missing for whoever may create one: a policy that lets only use it is the way."""
    policies = [transit.server.transit_policy(transit.mount)]
    token = transit.server.root.auth.token.create(policies=policies)["auth"]["client_token"]
    (tmp_path / "token").write_text(token)
    with pytest.raises(RootKeyError, match=source.open(name).place) as caught:
        source.open(name).wrap(KEY, "context")
    assert token not in str(caught.value)
    assert source.open("transit").unwrap(source.open("transit").wrap(KEY, "c"), "c") == KEY


def test_a_wrong_token_is_told_without_it(source: RootKeySource, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s.not-this-one")
    root = source.open("transit")
    with pytest.raises(RootKeyError) as caught:
        root.wrap(KEY, "context")
    assert "not-this-one" not in f"{caught.value}{root!r}"
    assert not isinstance(caught.value, WrongRootKey)


def test_it_signs_in_by_approle(transit: Transit, tmp_path: Path) -> None:
    server, secret = transit.server, tmp_path / "secret"
    role, secret_id = server.approle(transit.mount)
    server.transit_policy(transit.mount)  # of the same name as the role's
    secret.touch(mode=0o600)
    secret.write_text(secret_id)
    configuration = tmp_path / "kms.yaml"
    configuration.write_text(
        f"root_keys:\n  vault: {{{transit.place}, key: strongroom, "
        f"approle: {{role_id: {role}, secret_id: {{file: {secret}}}}}}}\n"
    )
    root = RootKeySource(tmp_path / "root.key", configuration).open("vault")
    assert root.unwrap(root.wrap(KEY, "c"), "c") == KEY


def test_no_key_and_no_credential_stands_in_a_repr(source: RootKeySource, tmp_path: Path) -> None:
    file = base64.b64decode((tmp_path / "root.key").read_bytes())
    shown = "".join(repr(source.open(kind)) for kind in KINDS)
    assert repr(file) not in shown
    assert (tmp_path / "token").read_text().strip() not in shown
    assert aws.ANYBODY["AWS_SECRET_ACCESS_KEY"] not in shown


def test_an_unknown_name_is_answered_with_those_that_are_known(source: RootKeySource) -> None:
    with pytest.raises(RootKeyUnknown, match=r"aws-kms, .*file, "):
        source.open("none")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("primary: none", "primary is not among the root keys"),
        ("root_keys: {file: {kind: file, path: x}}", "take another"),
        ("root_keys: {a: {kind: transit, endpoint: 'https://v', key: k}}", "one of token, approle and kubernetes"),
        (
            "root_keys: {a: {kind: transit, endpoint: 'http://v.example.com', key: k, token: {file: x}}}",
            "plain HTTP",
        ),
        ("root_keys: {a: {kind: transit, endpoint: 'https://v', key: k, token: planted-4711}}", "a.transit.token"),
        ("root_keys: {a: {kind: aws-kms, key: k, region: r, access_key: {environment: A}}}", "come together"),
        ("root_keys: {a: {kind: aws-kms, key: k, region: r}, a: {kind: file, path: x}}", "a field is named twice"),
        ("root_keys: [", "not YAML"),
    ],
)
def test_a_configuration_that_makes_no_sense_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "kms.yaml").write_text(text)
    with pytest.raises(RootKeyError, match=says) as caught:
        RootKeySource(tmp_path / "root.key", tmp_path / "kms.yaml").names()
    assert "planted-4711" not in str(caught.value)


def test_the_first_root_key_needs_no_configuration(tmp_path: Path) -> None:
    write_root_key(tmp_path / "root.key")
    source = RootKeySource(tmp_path / "root.key", None)
    assert (source.primary, source.names()) == ("file", ["file"])
    assert source.open("file").unwrap(source.open("file").wrap(KEY, "c"), "c") == KEY


def test_a_data_directory_whose_root_key_is_elsewhere_gets_no_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    layout.kms.write_text("primary: vault\nroot_keys: {vault: {kind: aws-kms, key: k, region: r}}\n")
    provide(layout, {})
    assert not layout.root_key.exists()
    # Nor is one missed that was removed after a move.
    (layout.databases / "strongroom-secrets.db").touch()
    provide(layout, {})
    layout.kms.unlink()
    with pytest.raises(StartError, match=r"root\.key is missing"):
        provide(layout, {})


def test_a_configuration_beside_the_file_does_not_keep_the_file_from_being_made(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    layout.kms.write_text("root_keys: {vault: {kind: aws-kms, key: k, region: r}}\n")
    provide(layout, {})
    assert layout.root_key.stat().st_mode & 0o777 == 0o600
    layout.root_key.unlink()
    layout.kms.write_text("primary: none\n")
    with pytest.raises(StartError, match="primary is not among"):
        provide(layout, {})


def test_credentials_of_such_systems_reach_the_secrets_service_alone() -> None:
    assert [_owner(name) for name in ("STRONGROOM_KMS", "STRONGROOM_KMS_TOKEN", "STRONGROOM_KMS_X_SECRET")] == [
        "secrets"
    ] * 3
