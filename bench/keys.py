"""P6: the keys of a manager with ten thousand versions rotate; and beside it, 2 GiB are re-encrypted.

The keys are made by the key service, as commits make them; the versions are rows, since to push ten thousand would take
longer than all else here. One more is pushed, and pulled after the rotations.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import services.models
from bench.figures import Row, Samples
from bench.transfer import random_file
from services.models import tables as t
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.tokens import ServiceIdentity
from strongroom import Client
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc
from tests import postgresql
from tests.stack import RunningStack, Stack

_VERSIONS = 10_000
_MANAGER = "default"
_MIGRATIONS = Path(services.models.__file__).parent / "migrations"


def measure(folder: Path, size: int, runs: int) -> list[Row]:
    """Rotates on SQLite and on PostgreSQL, `runs` times each; re-encrypts a file of `size` bytes once."""
    with RunningStack(folder / "keys") as stack:
        url = f"sqlite:///{folder}/keys/db/strongroom.db"
        rows = [_rotations("SQLite", stack, url, runs, 1.5), _reencryption(folder, stack, size)]
    with postgresql.running() as server:
        url = server.create_database()
        with RunningStack(folder / "keys-postgresql", STRONGROOM_DATABASE_URL=url) as stack:
            rows.append(_rotations("PostgreSQL", stack, url, runs, 3))
    for name in ("keys", "keys-postgresql"):
        shutil.rmtree(folder / name)
    return rows


def _rotations(name: str, stack: Stack, url: str, runs: int, target: float) -> Row:
    source = stack.data_dir.parent / "pushed.bin"
    source.write_bytes(b"still readable")
    samples = Samples(name)
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push("pushed", source, version="v1")
        _fill(stack, url)
        before = _packs(stack)
        for _ in range(runs):
            with samples.timed():
                receipt = client.rotation.rotate(_MANAGER)
            if receipt.rewrapped_keys < _VERSIONS:
                raise RuntimeError("not every key was wrapped anew")
        if client.models.read("pushed", "pushed.bin") != b"still readable" or _packs(stack) != before:
            raise RuntimeError("a rotation moved or lost weights")
    work = f"rotate the key of a manager with {_VERSIONS:,} versions, {name}, through the gateway"
    figure = f"{samples.median:.2f} s ({samples.spread()})"
    return Row("P6", work, figure, f"≤ {target:g} s", samples.median <= target)


def _reencryption(folder: Path, stack: Stack, size: int) -> Row:
    source = folder / "reencrypted.bin"
    random_file(source, size)
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push("large", source, version="v1")
        source.unlink()
        started = time.perf_counter()
        job = client.rotation.finished(client.rotation.reencrypt(_MANAGER, model="large"))
        seconds = time.perf_counter() - started
        if job.state != "done" or job.bytes_done != size:
            raise RuntimeError(f"the re-encryption is {job.state}: {job.error}")
    rate = size / (1 << 30) / seconds
    figure = f"{seconds:.1f} s, {rate:.2f} GiB/s"
    return Row("P6", f"re-encrypt {size / (1 << 30):g} GiB", figure, "beside it", None)


def _fill(stack: Stack, url: str) -> None:
    """Ten thousand versions of one model, each with a data key of its own."""
    identity = ServiceIdentity.load("models", stack.data_dir / "keys")
    address = f"127.0.0.1:{stack.state['ports']['secrets']}"
    stub = keys_pb2_grpc.KeyServiceStub(service_channel(address, "secrets", identity))
    database = Database.open(url, service="models", migrations=_MIGRATIONS)
    try:
        with database.read() as connection:
            manager: Any = connection.execute(sa.select(t.managers).where(t.managers.c.id == _MANAGER)).one()
            pushed: Any = connection.execute(sa.select(t.versions)).one()
        key_ids: list[str] = []
        while len(key_ids) < _VERSIONS:
            uids = [f"uid-{len(key_ids) + number}" for number in range(1000)]
            contexts = [f"managers/{_MANAGER}/versions/{uid}/data-key" for uid in uids]
            request = keys_pb2.GenerateKeysRequest(kek_id=manager.kek_id, contexts=contexts)
            key_ids += [key.key_id for key in stub.GenerateKeys(request).keys]
        like_it = {name: value for name, value in pushed._mapping.items() if name != "id"}
        with database.write() as connection:
            names = {"name": "many", "manager_id": _MANAGER, "versions_count": _VERSIONS}
            moments = {"created_at": pushed.created_at, "updated_at": pushed.created_at}
            many = connection.execute(sa.insert(t.models).values(names | moments).returning(t.models.c.id)).scalar_one()
            rows = [
                like_it
                | {"model_id": many, "name": f"v{number}", "uid": f"uid-{number}", "data_key_id": key_id}
                | {"manifest_key": f"manifests/uid-{number}"}
                for number, key_id in enumerate(key_ids)
            ]
            connection.execute(sa.insert(t.versions), rows)
    finally:
        database.close()


def _packs(stack: Stack) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (stack.data_dir / "weights" / "packs").rglob("*")}
