"""Keys that follow from others: of managers without encryption, of versions with an access code."""

import hashlib
import hmac
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.models import access_codes, manifests
from services.models.access_codes import AccessCode
from services.models.manifests import Manifest, ManifestFile
from services.models.public_keys import public_key
from services.models.version_keys import protected_secret
from tests.models_installation import Installation, installation, noise, refused
from tests.test_rotation import Rotations

_DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"
_DATA_KEY = bytes(range(0x60, 0x80))
WEIGHTS = noise(51, 1_200_000)


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    [block] = re.findall(r"```json\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    return dict(json.loads(block)["key_kinds"])


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("kinds")) as made:
        yield made


def _hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869, one block, no salt."""
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")


def test_derived_keys_are_as_documented(vector: dict[str, Any]) -> None:
    assert protected_secret(_DATA_KEY).hex() == vector["protected_secret"]
    assert _hkdf(_DATA_KEY, b"strongroom protected domain v1").hex() == vector["protected_secret"]
    assert public_key(vector["public_id"]).hex() == vector["public_key"]
    assert _hkdf(b"strongroom public key v1", vector["public_id"].encode()).hex() == vector["public_key"]


def test_a_locked_key_opens_by_the_rules_of_the_document_alone(vector: dict[str, Any]) -> None:
    drawn = iter([bytes(range(0x90, 0xA0)), bytes(range(0xA0, 0xAC))])
    context = "managers/fraud/protected-data-key"
    sealed = access_codes.seal(AccessCode("access code"), _DATA_KEY, context, lambda _count: next(drawn))
    assert sealed.hex() == vector["locked"]
    head = sealed[:32]
    assert head[:4] == bytes([1, 15, 8, 3])
    key = hashlib.scrypt(b"access code", salt=head[4:20], n=1 << 15, r=8, p=3, maxmem=64 << 20, dklen=32)
    aad = b"strongroom access code v1" + head + context.encode()
    assert AESGCM(key).decrypt(head[20:], sealed[32:], aad) == _DATA_KEY


@pytest.mark.row("S0.1")
def test_a_manager_without_encryption_stores_reads_and_notices_damage(running: Installation) -> None:
    manager = Rotations(running.admin).create(enable_encryption=False)
    admin = replace(running.admin, manager=manager)
    admin.push("v1", {"a": WEIGHTS})
    admin.push("v2", {"a": WEIGHTS, "b": b"x"})
    running.admin.collect()
    assert admin.read("v2", "a") == WEIGHTS
    assert admin.verify("v1").is_valid
    admin.delete("v2")
    assert admin.read("v1", "a") == WEIGHTS
    [pack] = sorted(running.stored("packs"), key=lambda path: path.stat().st_size)[-1:]
    content = pack.read_bytes()
    pack.write_bytes(content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
    assert not admin.verify("v1").is_valid
    with refused(grpc.StatusCode.DATA_LOSS, "CHUNK_DAMAGED"):
        admin.read("v1", "a")


def test_nothing_is_protected_where_keys_are_public(running: Installation) -> None:
    manager = Rotations(running.admin).create(enable_encryption=False)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "MANAGER_NOT_ENCRYPTED"):
        replace(running.admin, manager=manager).with_code("a code").create("v1")


def test_who_writes_the_database_does_not_put_data_under_public_keys(running: Installation) -> None:
    """A forged version: manifest and row of one who has no key, in a manager whose keys are secret."""
    running.admin.push("forged", {"a": b"genuine"})
    key_id, uid = "public-01FORGED", "01FORGED00000000000000000A"
    files = (ManifestFile("a", 0, bytes(32), ()),)
    manifest = Manifest("default", "scorer", "forged", uid, files, key_id, key_id)
    for domain in (key_id, "public-01OTHER"):
        data = manifests.encode(replace(manifest, domain_key_id=domain), public_key(key_id))
        (running.folder / "weights" / manifests.manifest_key(uid)).write_bytes(data)
        row = (uid, key_id, domain, manifests.manifest_key(uid), manifests.manifest_digest(data))
        with closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db", timeout=20)) as connection:
            connection.execute(
                "UPDATE versions SET uid = ?, data_key_id = ?, domain_key_id = ?, manifest_key = ?,"
                " manifest_digest = ? WHERE name = 'forged'",
                row,
            )
            connection.commit()
        for caller in (running.admin, running.admin.with_code("x")):
            with refused(grpc.StatusCode.DATA_LOSS, "KEY_MISSING"):
                caller.read("forged", "a")
