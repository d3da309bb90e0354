"""`python -m services.secrets`: how it starts, what it logs, how it ends."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.secrets.bootstrap import build
from services.secrets.root_keys.root_key import RootKeyError
from services.secrets.tables import METADATA
from tests.secrets_installation import PLANTED, Installation


def _environment(installation: Installation) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    settings = installation.settings
    return inherited | {
        "STRONGROOM_DATABASE_URL": settings.database_url.get_secret_value(),
        "STRONGROOM_IDENTITY_DIR": str(settings.identity_dir),
        "STRONGROOM_ROOT_KEY_FILE": str(settings.root_key_file),
        "STRONGROOM_SECRETS_LISTEN": settings.secrets_listen,
        "STRONGROOM_LOG_LEVEL": "debug",
    }


@contextmanager
def _running(installation: Installation) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "services.secrets"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=_environment(installation), stdout=pipe, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "listening":
            return event["port"]
    raise AssertionError(f"the service ended with status {process.wait()}")


def test_it_serves_logs_no_secret_and_stops_on_sigterm(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with _running(installation) as process:
        models = installation.caller("models", f"127.0.0.1:{_port(process)}")
        models("CreateKek", kek_id="m")
        [key] = models.generate("m", "c")
        ciphertext = models("Encrypt", kek_id="m", plaintext=PLANTED.encode(), context="c").ciphertext
        assert models("Decrypt", ciphertext=ciphertext, context="c").plaintext == PLANTED.encode()
        assert models.unwrap(key.key_id, "c") == key.key
        installation.sql("DROP TABLE keys")
        models.refusal("UnwrapKeys", keys=[{"key_id": key.key_id, "context": "c"}])
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    methods = [
        event["method"].rpartition("/")[2] for line in log.splitlines() if "method" in (event := json.loads(line))
    ]
    assert {"CreateKek", "GenerateKeys", "Encrypt", "Decrypt", "UnwrapKeys"} <= set(methods)
    # The failure is logged with its cause; neither it nor anything else with a value.
    assert "no such table" in log
    root_key = base64.b64decode(installation.root_key.read_bytes())
    for hidden in (PLANTED.encode(), key.key, root_key):
        for shown in (hidden.decode(errors="replace"), hidden.hex(), base64.b64encode(hidden).decode(), repr(hidden)):
            assert shown not in log


def test_a_wrong_root_key_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    build(installation.settings).close()
    installation.change_root_key()
    with _running(installation) as process:
        written, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    another = f"The database was encrypted under another root key than {installation.root_key}."
    assert written == f"{another} Restore that one from your copy.\n"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"not base64!", 0o600, "not base64"),
        (base64.b64encode(b"short"), 0o600, "5 bytes instead of 32"),
        (base64.b64encode(bytes(32)), 0o644, "chmod 600"),
        (base64.b64encode(bytes(32)), 0o640, "chmod 600"),
        (None, 0o600, "can't be read"),
    ],
)
def test_a_bad_root_key_says_what_to_do(tmp_path: Path, content: bytes | None, mode: int, message: str) -> None:
    installation = Installation(tmp_path)
    installation.root_key.unlink()
    if content is not None:
        installation.root_key.write_bytes(content)
        installation.root_key.chmod(mode)
    with pytest.raises(RootKeyError, match=message) as caught:
        build(installation.settings)
    assert content is None or content.decode() not in str(caught.value)
    assert installation.sql("SELECT count(*) FROM root_keys") == [(0,)]


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    build(installation.settings).close()
    engine = sa.create_engine(f"sqlite:///{installation.database}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
