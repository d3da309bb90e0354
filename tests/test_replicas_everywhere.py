"""Replicas on PostgreSQL, and in real clouds' servers: what the other tests show on SQLite and folders holds there."""

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from tests.models_installation import Installation, installation, noise
from tests.replicated import Replicated, stores_file, wait_for
from tests.store_servers import BUCKET, AzureServer, GcsServer, S3Server

MIB = 1 << 20


@pytest.mark.row("S4.5")
def test_replicas_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    kept, more = noise(1, MIB), noise(2, 12 * MIB)
    with installation(tmp_path, postgresql_url, stores_file(tmp_path)) as running:
        three = Replicated(running)
        with three.down("west"):
            running.admin.push("v1", {"a": kept, "b": more})
        running.admin.push("v2", {"a": kept})
        three.synced()
        running.admin.delete("v1")
        repacked = running.admin.collect().repacked_packs
        assert running.admin.collect().deleted_packs == repacked
        three.synced()
        assert running.admin.read("v2", "a", provider="west") == kept
        running.admin.delete("v2", primary_only=True)
        assert three.objects("main") == {}
        running.admin.sync_stores()
        wait_for(lambda: not any(store.repairing for store in running.admin.show_stores().stores))
        assert three.objects("main") == {}
        _forget(postgresql_url)
        assert running.admin.rebuild().versions_added == 1
        assert running.admin.read("v2", "a") == kept


def _forget(url: str) -> None:
    """Empties the index, as if it was lost."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE models.managers, models.models, models.versions, models.chunks CASCADE"))
        connection.execute(sa.text("TRUNCATE models.packs, models.condemned, models.pending_copies CASCADE"))
    engine.dispose()


@pytest.mark.slow
@pytest.mark.row("S4.4", "S4.5")
def test_a_primary_in_s3_with_replicas_in_google_and_azure(
    tmp_path: Path, s3_server: S3Server, gcs_server: GcsServer, azure_server: AzureServer
) -> None:
    file = _clouds_file(tmp_path, s3_server, gcs_server, azure_server)
    content = noise(3, 9 * MIB)
    with installation(tmp_path, stores=file) as running:
        running.admin.push("v1", {"a": content})
        _synced(running)
        for provider in ("aws", "gcp", "azure"):
            assert running.admin.read("v1", "a", provider=provider) == content
        assert running.admin.verify("v1").is_valid
        running.admin.delete("v1", primary_only=True)
        assert running.admin.read("v1", "a") == content
        running.admin.delete("v1")
        running.clock.ahead += timedelta(hours=25)
        assert running.admin.collect().deleted_packs > 0
        assert [store.healthy for store in running.admin.show_stores().stores] == [True] * 3


def _synced(running: Installation) -> None:
    wait_for(lambda: not any(store.pending_objects for store in running.admin.show_stores().stores), seconds=60)


def _clouds_file(folder: Path, s3: S3Server, gcs: GcsServer, azure: AzureServer) -> Path:
    secrets = {"access": s3.access_key, "secret": s3.secret_key, "azure": azure.key}
    for name, value in secrets.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(value)
    stores = {
        "amazon": {
            "kind": "s3",
            "bucket": BUCKET,
            "endpoint": s3.url,
            "prefix": folder.name,
            "access_key": {"file": str(folder / "access")},
            "secret_key": {"file": str(folder / "secret")},
        },
        "google": {"kind": "gcs", "bucket": BUCKET, "endpoint": gcs.url, "prefix": folder.name, "anonymous": True},
        "microsoft": {
            "kind": "azure",
            "container": BUCKET,
            "endpoint": azure.url,
            "prefix": folder.name,
            "credential": {"file": str(folder / "azure")},
        },
    }
    file = folder / "stores.yaml"
    file.write_text(yaml.safe_dump({"primary": "amazon", "replicas": ["google", "microsoft"], "stores": stores}))
    return file
