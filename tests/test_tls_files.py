"""Certificates as files hold them: what is refused, what is served, and that half of a change never is."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from services.shared.certificates import Certificates
from strongroom.certificates import CertificateError, read_certificates, read_pair
from strongroom.local.errors import StartError
from strongroom.local.pki import Pki
from strongroom.local.tls import GatewayTls, Sources, Upkeep, pki_of
from tests.stack import STRONGROOM, inherited


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def write(folder: Path, authority: trustme.CA, name: str = "room.example.org") -> tuple[Path, Path]:
    """A certificate and its key in two files, as certbot keeps them."""
    made = authority.issue_cert(name)
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(made.private_key_pem.bytes())
    return certificate, key


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path]:
    return write(tmp_path, authority)


def refusal(certificate: Path, key: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        read_pair(certificate, key)
    assert "PRIVATE" not in str(caught.value)
    return str(caught.value)


def test_files_that_cannot_be_used_are_refused_in_a_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = files
    pair = read_pair(certificate, key)
    assert pair.leaf.not_valid_after_utc > datetime.now(UTC)
    assert "can't be read" in refusal(tmp_path / "none.pem", key)
    assert "no file" in refusal(Path("/dev/null"), key)
    assert "holds no certificate" in refusal(key, key)
    assert "holds no private key" in refusal(certificate, _private(tmp_path / "x", certificate.read_bytes()))
    assert "larger than" in refusal(certificate, _private(tmp_path / "large", b"a" * 300_000))
    key.chmod(0o640)
    assert f"chmod 600 {key}" in refusal(certificate, key)


def test_a_key_of_another_certificate_or_kind_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, _ = files
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    keys = {
        "is not that of the certificate": rsa.generate_private_key(65537, 2048).private_bytes(pem, pkcs8, plain),
        "neither ECDSA nor RSA": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, plain),
        "locked by a passphrase": rsa.generate_private_key(65537, 2048).private_bytes(
            pem, pkcs8, serialization.BestAvailableEncryption(b"passphrase")
        ),
    }
    for number, (sentence, content) in enumerate(keys.items()):
        assert sentence in refusal(certificate, _private(tmp_path / f"{number}.key", content))


def _private(file: Path, content: bytes) -> Path:
    file.touch(mode=0o600)
    file.write_bytes(content)
    return file


def test_an_expired_certificate_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(CertificateError, match="has expired"):
        read_pair(*files, now=datetime.now(UTC) + timedelta(days=400_000))


def served(folder: Path) -> str:
    [resource] = json.loads((folder / "edge.json").read_text())["resources"]
    return str(resource["tls_certificate"]["certificate_chain"]["inline_string"])


def test_half_of_a_change_is_not_served(files: tuple[Path, Path], tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = files
    tls = GatewayTls(Sources((certificate, key)), tmp_path / "tls", Clock())
    tls.start()
    before, other = served(tmp_path / "tls"), tmp_path / "other"
    other.mkdir()
    new_certificate, new_key = write(other, authority)
    new_certificate.replace(certificate)
    [complaint] = tls.refresh()
    assert "is not that of the certificate" in complaint
    assert tls.refresh() == [], "it is told once"
    assert served(tmp_path / "tls") == before
    new_key.replace(key)
    assert tls.refresh() == []
    assert served(tmp_path / "tls") == read_pair(certificate, key).chain.decode() != before
    assert read_pair(certificate, key).fingerprint in tls.shown()
    assert (tmp_path / "tls" / "edge.json").stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert "chmod 600" in tls.refresh()[0]


def test_no_key_stays_behind_that_is_served_no_longer(files: tuple[Path, Path], tmp_path: Path) -> None:
    GatewayTls(Sources(files), tmp_path / "tls").start()
    GatewayTls(Sources(), tmp_path / "tls").start()
    assert list((tmp_path / "tls").iterdir()) == []


def test_a_gateway_does_not_start_with_what_it_cannot_serve(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StartError, match="can't be read"):
        GatewayTls(Sources((tmp_path / "none", None)), tmp_path / "tls").start()


def test_the_environment_says_whose_certificate_is_shown(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    both = {"STRONGROOM_TLS_CERT": "/a/cert.pem", "STRONGROOM_TLS_KEY": "/a/key.pem"}
    assert Sources.read({}, None) == Sources(None, None)
    assert Sources.read({}, pki) == Sources((tmp_path / "edge.pem", None), pki)
    assert Sources.read(both, pki) == Sources((Path("/a/cert.pem"), Path("/a/key.pem")), pki)
    assert Sources.read({"STRONGROOM_TLS": "off"}, pki) == Sources(None, pki)
    for wrong in ({"STRONGROOM_TLS_KEY": "k"}, {"STRONGROOM_TLS": "on"}, both | {"STRONGROOM_TLS": "off"}):
        with pytest.raises(StartError, match="STRONGROOM_TLS"):
            Sources.read(wrong, None)


def test_a_folder_without_certificates_is_no_word_against_cleartext_unless_it_is_named(tmp_path: Path) -> None:
    assert pki_of({}, tmp_path / "pki") is None
    named = pki_of({"STRONGROOM_PKI_DIR": str(tmp_path)}, tmp_path / "pki")
    assert named is not None
    with pytest.raises(StartError, match="can't be read"):
        GatewayTls(Sources.read({}, named), tmp_path / "tls").start()


def test_certificates_are_renewed_in_time_and_the_user_is_told(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    pki.init(["localhost"])
    tls = GatewayTls(Sources.read({}, pki), tmp_path / "tls", Clock())
    tls.start()
    told: list[str] = []
    clock = iter([0.0, 30.0, 61.0, 61.0])
    upkeep = Upkeep(tls, told.append, lambda: next(clock))
    pki.of("models").unlink()
    upkeep()
    assert told == []
    upkeep()
    assert told == ["renewed the certificates of models"]


def test_a_service_keeps_what_it_has_while_files_are_wrong(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    pki.init([])
    certificates = Certificates(pki.folder, "models", Clock())
    before = certificates.current()
    pki.authorities.write_text("half of it")
    assert certificates.current() is before
    pki.authorities.unlink()
    assert certificates.current() is before
    pki.of("models").write_bytes(pki.of("auth").read_bytes())
    assert certificates.current() is before
    pki._trust([pki._load().certificate])
    after = certificates.current()
    assert after is not before
    assert read_certificates(pki.authorities)
    assert "PRIVATE" not in repr(after)


def test_up_says_what_is_wrong_and_makes_nothing(tmp_path: Path) -> None:
    command = [str(STRONGROOM), "up", "--data-dir", str(tmp_path / "data"), "--tls-key", "key.pem"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=inherited(), check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "strongroom: STRONGROOM_TLS_KEY is set and STRONGROOM_TLS_CERT is not: give the certificate too.\n"
    )
    assert not (tmp_path / "data").exists()
