"""An installation with a primary and two replicas, all of them folders, of which a test takes some away."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.models_installation import Installation, installation

NAMES = ("main", "east", "west")


@dataclass
class Replicated:
    """A running installation whose stores are `folder/<name>`."""

    running: Installation

    def folder(self, store: str) -> Path:
        return self.running.folder / store

    def objects(self, store: str) -> dict[str, bytes]:
        """What the store holds of weights, by key."""
        root = self.folder(store)
        return {
            str(path.relative_to(root)): path.read_bytes()
            for kind in ("packs", "manifests")
            for path in (root / kind).rglob("*")
            if path.is_file()
        }

    def synced(self) -> None:
        """Waits until no store lacks anything, and all are the same."""
        wait_for(lambda: not any(store.pending_objects for store in self.running.admin.show_stores().stores))
        assert self.objects("main") == self.objects("east") == self.objects("west")

    @contextmanager
    def down(self, store: str) -> Iterator[None]:
        """The store does not answer while the block runs: its folder is gone, with a file in its place."""
        folder, aside = self.folder(store), self.folder(store).with_suffix(".aside")
        folder.rename(aside)
        folder.touch()
        try:
            yield
        finally:
            folder.unlink()
            aside.rename(folder)


def stores_file(folder: Path, **more: Any) -> Path:
    """The configuration of the three stores, and what else shall stand in it."""
    stores = {name: {"kind": "local", "path": name} for name in NAMES}
    file = folder / "stores.yaml"
    file.write_text(yaml.safe_dump({"primary": NAMES[0], "replicas": list(NAMES[1:]), "stores": stores} | more))
    return file


@contextmanager
def replicated(folder: Path, **more: Any) -> Iterator[Replicated]:
    with installation(folder, stores=stores_file(folder, **more)) as running:
        yield Replicated(running)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)
