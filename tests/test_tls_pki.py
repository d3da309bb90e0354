"""`strongroom pki`: the authority, its certificates, and in which order they are replaced."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import DNSName
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from typer.testing import CliRunner

from strongroom.certificates import PARTS, name_of, part_named, read_certificates, read_pair
from strongroom.cli import app
from strongroom.local.authority import EDGE, LEAF_LIFE, Authority, HostInvalid, host
from strongroom.local.errors import StartError
from strongroom.local.pki import HOLDERS, Pki

HOSTS = ["strongroom.example.org", "127.0.0.1"]


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pki(tmp_path: Path, clock: Clock) -> Pki:
    made = Pki(tmp_path / "pki", clock, pause=lambda _: None)
    made.init(HOSTS)
    return made


def leaf(pki: Pki, holder: str) -> x509.Certificate:
    return read_pair(pki.of(holder), now=datetime.min.replace(tzinfo=UTC)).leaf


def believed(pki: Pki, certificate: x509.Certificate, name: str) -> bool:
    verifier = PolicyBuilder().store(Store(read_certificates(pki.authorities))).build_server_verifier(DNSName(name))
    try:
        verifier.verify(certificate, [])
    except VerificationError:
        return False
    return True


def test_everything_is_made_for_its_owner_alone(pki: Pki) -> None:
    assert {path.name for path in pki.folder.iterdir()} == {
        *("authority.pem", "ca.pem", "lock"),
        *(f"{holder}.pem" for holder in HOLDERS),
    }
    assert {path.stat().st_mode & 0o777 for path in pki.folder.iterdir()} == {0o600}
    assert pki.folder.stat().st_mode & 0o777 == 0o700
    assert all(believed(pki, leaf(pki, part), name_of(part)) for part in ("auth", "models", "secrets"))
    assert believed(pki, leaf(pki, EDGE), "strongroom.example.org")
    assert not believed(pki, leaf(pki, EDGE), "models.strongroom.internal")
    assert not [one.note for one in pki.show() if one.note]


def test_keys_are_in_no_repr(pki: Pki) -> None:
    pair = read_pair(pki.of("models"))
    assert b"PRIVATE" in pair.key
    assert "PRIVATE" not in repr(pair) + repr(Authority.make([], datetime.now(UTC)))


def test_what_callers_are_shown_opens_nothing_inside_and_the_gateways_own_serves_nothing(pki: Pki) -> None:
    def usages(holder: str) -> set[str]:
        found = leaf(pki, holder).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return {usage._name for usage in found}

    assert usages(EDGE) == {"serverAuth"}
    assert usages("gateway") == {"clientAuth"}
    assert usages("models") == {"serverAuth", "clientAuth"}


def test_a_stolen_authority_speaks_for_no_other_host(pki: Pki, clock: Clock) -> None:
    thief = pki._load()
    for name in ("bank.example", "strongroom.example.org.evil.example", "example.org"):
        (pki.folder / "forged.pem").write_bytes(thief.issue(EDGE, [name], clock()))
        (pki.folder / "forged.pem").chmod(0o600)
        assert not believed(pki, read_pair(pki.folder / "forged.pem").leaf, name)


def test_a_folder_that_others_may_write_to_holds_no_keys(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki").chmod(0o777)
    with pytest.raises(StartError, match="chmod 700"):
        Pki(tmp_path / "pki").init([])
    Pki(tmp_path / "new" / "pki").init([])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_second_init_replaces_nothing(pki: Pki) -> None:
    before = read_pair(pki.of("models"))
    with pytest.raises(StartError, match="strongroom pki rotate"):
        pki.init(HOSTS)
    assert read_pair(pki.of("models")) == before


@pytest.mark.parametrize("kept", [["ca.pem"], ["ca.pem", "authority.pem"], ["ca.pem", "authority.pem", "edge.pem"]])
def test_an_init_that_was_cut_off_can_be_repeated(pki: Pki, kept: list[str]) -> None:
    for path in pki.folder.iterdir():
        if path.name not in kept:
            path.unlink()
    pki.init(HOSTS)
    assert not [one.note for one in pki.show() if one.note]
    assert believed(pki, leaf(pki, "models"), name_of("models"))


def test_rotate_gives_all_new_keys_of_the_same_authority(pki: Pki) -> None:
    before = {holder: read_pair(pki.of(holder)) for holder in HOLDERS}
    trusted = read_certificates(pki.authorities)
    pki.rotate()
    after = {holder: read_pair(pki.of(holder)) for holder in HOLDERS}
    assert all(before[holder].key != after[holder].key for holder in HOLDERS)
    assert read_certificates(pki.authorities) == trusted
    assert believed(pki, after[EDGE].leaf, "strongroom.example.org"), "the hosts stay"
    with pytest.raises(StartError, match="--authority"):
        pki.rotate(["other.example.org"])


def test_a_new_authority_is_trusted_before_anybody_shows_its_certificates(tmp_path: Path, clock: Clock) -> None:
    seen: list[tuple[int, bool]] = []

    def look(_: float) -> None:
        every = [leaf(pki, holder) for holder in PARTS]
        trusted = read_certificates(pki.authorities)
        seen.append((len(trusted), all(certificate.issuer == trusted[0].subject for certificate in every)))

    pki = Pki(tmp_path / "pki", clock, pause=look)
    pki.init(HOSTS)
    pki.rotate_authority(["other.example.org"], distrust=True)
    assert seen == [(2, False), (2, True)], "both are trusted, first with old certificates and then with new ones"
    assert len(read_certificates(pki.authorities)) == 1
    assert believed(pki, leaf(pki, EDGE), "other.example.org")


def test_the_authority_before_is_trusted_until_its_last_certificate_has_ended(pki: Pki, clock: Clock) -> None:
    pki.rotate_authority()
    pki.rotate()
    assert len(read_certificates(pki.authorities)) == 2
    clock.now += LEAF_LIFE + timedelta(hours=1)
    pki.rotate()
    assert len(read_certificates(pki.authorities)) == 1
    assert not [one.note for one in pki.show() if one.note]


class Crash(Exception):
    pass


@pytest.mark.parametrize("step", range(9))
def test_a_rotation_that_is_cut_off_anywhere_leaves_certificates_that_all_believe(
    pki: Pki, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    from strongroom.local import pki as module

    write, left = module.write_private, iter([None] * step)

    def cut(file: Path, content: str) -> None:
        if next(left, Crash) is Crash:
            raise Crash
        write(file, content)

    monkeypatch.setattr(module, "write_private", cut)
    try:
        pki.rotate_authority()
    except Crash:
        assert step < 2 + len(HOLDERS)
    monkeypatch.undo()
    assert not [one.note for one in pki.show() if one.note]
    pki.rotate()
    assert not [one.note for one in pki.show() if one.note]


def test_renew_replaces_what_is_due_and_what_is_missing_alone(pki: Pki, clock: Clock) -> None:
    assert pki.renew() == []
    pki.of("models").unlink()
    assert pki.renew() == ["models"]
    clock.now += LEAF_LIFE * 0.6
    assert pki.renew() == []
    clock.now += LEAF_LIFE * 0.1
    assert pki.renew() == list(HOLDERS)
    (pki.folder / "authority.pem").unlink()
    clock.now += LEAF_LIFE
    assert pki.renew() == [], "the authority is kept elsewhere"
    assert {one.note for one in pki.show() if one.holder in HOLDERS} == {"expired"}
    with pytest.raises(StartError, match="without which no certificate is made"):
        pki.rotate()


def test_nobody_renews_while_another_makes_certificates(pki: Pki) -> None:
    pki.of("models").unlink()
    with pki._locked():
        assert pki.renew() == []


@pytest.mark.parametrize("text", ["", "a b", "*.example.org", "https://x", "1.2.3", "x" * 254, "a..b", "-a.b", "ä.de"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(HostInvalid):
        host(text)


def test_hosts_are_written_as_certificates_hold_them() -> None:
    assert [host(text) for text in ("Room.Example.ORG", "[::1]", "010.example", "10.0.0.1", "localhost")] == [
        *("room.example.org", "::1", "010.example", "10.0.0.1", "localhost")
    ]


def test_only_the_parts_have_names_of_parts() -> None:
    assert [part_named(name_of(part)) for part in PARTS] == list(PARTS)
    for name in ("models", "models.example.org", "x.strongroom.internal", "a.models.strongroom.internal", ""):
        assert part_named(name) is None


@pytest.fixture
def strongroom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    monkeypatch.delenv("STRONGROOM_PKI_DIR", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["pki", *arguments, "--data-dir", str(tmp_path)])
        return done.exit_code, done.output

    return run


def test_the_commands(strongroom: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert strongroom("show") == (1, f"strongroom: {tmp_path}/pki/ca.pem can't be read: No such file or directory.\n")
    assert strongroom("rotate")[0] == 1
    assert strongroom("init", "--host", "not a host")[0] == 1
    assert strongroom("init", "--host", "room.example.org", "--host", "::1")[0] == 0
    status, text = strongroom("show", "--json")
    found = {one["holder"]: one for one in json.loads(text)["certificates"]}
    assert status == 0
    assert found["edge"]["names"] == ["room.example.org", "::1"]
    assert found["models"]["names"] == ["models.strongroom.internal"]
    assert strongroom("rotate") == (0, f"rotated the certificates in {tmp_path}/pki\n")
    assert strongroom("rotate", "--distrust")[0] == 2
    (tmp_path / "pki" / "models.pem").write_bytes((tmp_path / "pki" / "ca.pem").read_bytes())
    status, text = strongroom("show")
    assert status == 1
    assert "holds no private key" in text
    assert "PRIVATE" not in text


def test_the_environment_says_where_the_certificates_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STRONGROOM_PKI_DIR", raising=False)
    monkeypatch.setenv("STRONGROOM_DATA_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["pki", "show"]).output.startswith(f"strongroom: {tmp_path}/pki/ca.pem ")
