"""The root key as operators see it: through the gateway, over REST and gRPC, and on the command line."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import NotFound, PermissionDenied
from tests.stack import Stack
from tests.terminal import Terminal
from tests.test_gateway_rest import admin, assert_problem
from tests.test_root_keys import write_root_key

pytestmark = pytest.mark.row("S4.6")


@contextmanager
def second_root_key(stack: Stack, name: str) -> Iterator[str]:
    """Another root key for the shared stack, which is back on its own one afterwards."""
    file = stack.data_dir / f"{name}.key"
    write_root_key(file)
    (stack.data_dir / "kms.yaml").write_text(f"root_keys:\n  {name}: {{kind: file, path: {file.name}}}\n")
    try:
        yield name
    finally:
        assert Terminal.of(stack)("admin", "root-key", "move", "file").out.startswith("moved to file, generation")
        (stack.data_dir / "kms.yaml").unlink()
        file.unlink()


# No other test moves the root key of the shared stack.
def test_it_is_shown_and_moved_while_it_is_used(stack: Stack) -> None:
    stop, failures, reads = threading.Event(), [], []
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.secrets.put("root-key/used", {"a": "b"})

        def use() -> None:
            while not stop.is_set():
                try:
                    reads.append(dict(client.secrets.get("root-key/used").data))
                except Exception as error:
                    failures.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        try:
            with second_root_key(stack, "second") as name:
                # No restart: the configuration is read when it is needed.
                assert name in client.root_key.show().configured
                moved = admin(stack, "POST", "/api/v1/root-key:move", {"name": name})
                while moved.status == 200 and moved.json["left"]:
                    moved = admin(stack, "POST", "/api/v1/root-key:move", {"name": name})
                assert moved.status == 200
                shown = admin(stack, "GET", "/api/v1/root-key").json["generations"]
                assert [(one["name"], one["kind"]) for one in shown] == [(name, "file")]
                assert shown[0]["place"].endswith("second.key")
            assert [one.name for one in client.root_key.show().generations] == ["file"]
        finally:
            stop.set()
            thread.join()
        assert failures == []
        assert reads
        assert all(value == {"a": "b"} for value in reads)
        [event, *_] = client.audit.list(method="strongroom.secrets.v1.RootKeyService/MoveRootKey")
        assert (event.resource, event.outcome) == ("system/root-key", "allowed")


def test_on_the_command_line(stack: Stack) -> None:
    strongroom = Terminal.of(stack)
    shown = strongroom("admin", "root-key", "show").out
    assert "root.key" in shown
    assert "configured: file" in shown
    refused = strongroom("admin", "root-key", "move", "none")
    assert refused.status == 1
    assert refused.err.startswith("strongroom: No root key 'none' is configured.")
    assert refused.err.count("\n") == 1


def test_only_who_maintains_the_system_may(stack: Stack) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        key = client.keys.create("root-key-reader", permission_set="prefect_workflows").key
        with pytest.raises(NotFound):
            client.root_key.move("none")
    with Client(stack.url, api_key=key) as client:
        for call in (client.root_key.show, lambda: client.root_key.move("file")):
            with pytest.raises(PermissionDenied, match=r"system\.maintain"):
                call()
    problem = admin(stack, "POST", "/api/v1/root-key:move", {"name": "none"})
    assert_problem(problem, 404, "ROOT_KEY_UNKNOWN")


def test_neither_key_nor_configuration_is_shown(stack: Stack) -> None:
    text = admin(stack, "GET", "/api/v1/root-key").body.decode()
    assert (stack.data_dir / "root.key").read_text().strip() not in text
    logs = b"".join(path.read_bytes() for path in (Path(stack.data_dir) / "logs").iterdir())
    assert (stack.data_dir / "root.key").read_bytes().strip() not in logs
