"""The whole product on PostgreSQL, one schema a service."""

from pathlib import Path

import psycopg
import pytest

from strongroom import Client
from strongroom.errors import NotFound, PermissionDenied
from tests.stack import RunningStack


@pytest.mark.slow
def test_everything_works_on_postgresql_as_on_sqlite(tmp_path: Path, postgresql_url: str) -> None:
    weights, pulled = tmp_path / "weights.bin", tmp_path / "pulled.bin"
    weights.write_bytes(bytes(range(256)) * 20_000)
    running = RunningStack(tmp_path / "data", STRONGROOM_DATABASE_URL=postgresql_url)
    with running as stack, Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push("scorer", weights, version="v1")
        client.secrets.put("prod/db", {"port": 5432})
        key = client.keys.create("ci", permission_set="read_only")
    with running as stack, Client(stack.url, api_key=key.key) as reader:
        reader.models.pull("scorer", pulled, version="v1")
        assert pulled.read_bytes() == weights.read_bytes()
        assert reader.models.verify("scorer", "v1").is_valid
    with running as stack, Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push("scorer", weights, version="v2", access_code="a code")
        assert client.rotation.rotate(password="a password").rewrapped_keys == 3
        job = client.rotation.finished(client.rotation.reencrypt())
        assert (job.state, job.versions_done, list(job.skipped_versions)) == ("done", 1, ["scorer@v2"])
        for version, code in (("v1", None), ("v2", "a code")):
            client.models.pull("scorer", pulled, version=version, access_code=code)
            assert pulled.read_bytes() == weights.read_bytes()
        with pytest.raises(PermissionDenied):
            client.models.read("scorer", "weights.bin", version="v2", access_code="wrong")
        client.models.delete("scorer", "v2")
    with running as stack, Client(stack.url, api_key=stack.admin_key) as client:
        assert client.secrets.get("prod/db").data["port"] == 5432
        assert client.models.delete("scorer", "v1").shredded_chunks > 0
        with pytest.raises(NotFound):
            client.models.show("scorer", "v1")
        client.admin.collect_garbage(min_age_seconds=0)
        left = [path for path in (stack.data_dir / "weights").rglob("*") if path.is_file()]
        assert [path.parent.parent.name for path in left] == ["index"]
    assert list((tmp_path / "data" / "db").iterdir()) == []
    with psycopg.connect(postgresql_url) as connection:
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information)'"
        ).fetchall()
    assert {"auth", "models", "secrets"} <= {name for (name,) in schemas}
