"""What callers do while parts fail. Each acts in a thread of its own, notes what was answered, and looks again."""

import hashlib
import itertools
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from strongroom import Client
from strongroom.errors import NotFound, StrongroomError
from tests.faults.history import History, Register
from tests.faults.rest import Failed, Rest


class Caller(Protocol):
    """Somebody who acts."""

    name: str

    def act(self) -> None:
        """Does one thing. Raises Failed where the answer is an error."""

    def settle(self) -> None:
        """When all is well again: everything acknowledged is there."""


class Writer:
    """Writes a secret, version after version, over REST, and reads it."""

    def __init__(self, url: str, key: str, history: History, number: int) -> None:
        self.name = f"secret {number}"
        self._rest = Rest(url, key)
        self._history = history
        self._register = Register(f"faults/{secrets.token_hex(4)}")
        self._path = f"/api/v1/secrets/{self._register.name}"
        self._in_doubt = False

    def act(self) -> None:
        if self._in_doubt:
            self._look()
            self._in_doubt = False
        newest, value = self._register.newest, secrets.token_hex(8)
        self._register.attempt(newest + 1, value)
        body = {"data": {"value": value}, "expected_version": newest, "allow_missing": True}
        try:
            written = self._rest.call("PUT", self._path, body)
        except Failed as error:
            self._in_doubt = True
            if error.reason == "VERSION_MISMATCH":
                return  # one in doubt came after all: the next look finds it
            raise
        self._register.acknowledge(written["version"], value)
        self._look()

    def _look(self, version: int = 0) -> None:
        at_least = self._register.newest
        try:
            found = self._rest.call("GET", self._path + (f"?version={version}" if version else ""))
        except Failed as error:
            if error.reason != "SECRET_NOT_FOUND":
                raise
            if at_least:
                self._history.violate(f"{self._register.name}: version {at_least} was acknowledged and is gone")
            return
        complaint = self._register.complaint(version or at_least, found["version"], found["data"]["value"])
        if complaint:
            self._history.violate(complaint)

    def settle(self) -> None:
        self._look()
        for version in self._register.acknowledged:
            self._look(version)


class Pusher:
    """Pushes weights through the client, pulls them, and deletes some of them."""

    def __init__(self, url: str, key: str, history: History, number: int, folder: Path) -> None:
        self.name = f"weights {number}"
        self._client = Client(url, api_key=key)
        self._history = history
        self._model = f"m{secrets.token_hex(4)}"
        self._source, self._pulled = folder / f"{self._model}.bin", folder / f"{self._model}.pulled"
        self._shared = os.urandom(300_000)
        self._there: dict[str, str] = {}
        self._deleted: list[str] = []
        self._number = 0
        self._steps = itertools.cycle((self._push, self._pull_one, self._push, self._delete_one))

    def act(self) -> None:
        _told(next(self._steps))

    def _push(self) -> None:
        self._number += 1
        version = f"v{self._number}"
        content = self._shared + os.urandom(100_000)
        self._source.write_bytes(content)
        self._client.models.push(self._model, self._source, version=version)
        self._there[version] = hashlib.sha256(content).hexdigest()

    def _pull_one(self) -> None:
        if self._there:
            self._check(secrets.choice(list(self._there)))

    def _check(self, version: str) -> None:
        try:
            self._client.models.pull(self._model, self._pulled, version=version)
        except NotFound as error:
            self._history.violate(f"{self._model}@{version} was acknowledged and is gone: {error}")
            return
        if hashlib.sha256(self._pulled.read_bytes()).hexdigest() != self._there[version]:
            self._history.violate(f"{self._model}@{version} is not what was pushed")

    def _delete_one(self) -> None:
        if len(self._there) < 5:
            return
        version = next(iter(self._there))
        del self._there[version]  # if it fails, nobody knows
        self._client.models.delete(self._model, version)
        self._deleted.append(version)
        self._check_deleted(version)

    def _check_deleted(self, version: str) -> None:
        try:
            self._client.models.read(self._model, self._source.name, version=version)
        except NotFound:
            return
        self._history.violate(f"{self._model}@{version} was deleted and was read")

    def settle(self) -> None:
        for version in self._there:
            _told(lambda version=version: self._check(version))
        for version in self._deleted:
            _told(lambda version=version: self._check_deleted(version))
        self._client.close()


class KeyHolder:
    """Makes keys that may read one secret, uses them, revokes them, and tries what they may not."""

    def __init__(self, url: str, key: str, history: History, number: int) -> None:
        self.name = f"keys {number}"
        self._url = url
        self._admin = Rest(url, key)
        self._history = history
        self._own = f"faults/keys/{secrets.token_hex(4)}"
        self._kept: list[str] = []
        self._revoked: list[str] = []
        self._ready = False

    def act(self) -> None:
        if not self._ready:
            for name in (f"{self._own}/open", f"{self._own}/closed"):
                self._admin.call("PUT", f"/api/v1/secrets/{name}", {"data": {"a": "b"}, "allow_missing": True})
            self._ready = True
        grants = [{"effect": "allow", "permissions": ["secrets.read"], "resources": [f"secrets/{self._own}/open"]}]
        made = self._admin.call("POST", "/api-keys", {"name": secrets.token_hex(4), "grants": grants})
        self._read(made["key"], "open", allowed=True)
        self._read(made["key"], "closed", allowed=False)
        self._read("", "open", allowed=False)
        if len(self._kept) < 3:
            self._kept.append(made["key"])
            return
        self._admin.call("POST", f"/api-keys/{made['id']}/revoke", {})
        # It holds at the next request, through every replica (docs/access.md).
        self._revoked.append(made["key"])
        for key in self._revoked[-3:]:
            self._read(key, "open", allowed=False)
        self._read(secrets.choice(self._kept), "open", allowed=True)

    def _read(self, key: str, which: str, *, allowed: bool) -> None:
        rest = Rest(self._url, key)
        try:
            rest.call("GET", f"/api/v1/secrets/{self._own}/{which}")
        except Failed as error:
            if error.ambiguous:
                raise
            if allowed:
                self._history.violate(f"a key that may read {which} was refused: {error}")
        else:
            if not allowed:
                self._history.violate(f"{'a key' if key else 'a stranger'} read {which} and may not")
        finally:
            rest.close()

    def settle(self) -> None:
        for key in self._kept:
            self._read(key, "open", allowed=True)
            self._read(key, "closed", allowed=False)
        for key in self._revoked:
            self._read(key, "open", allowed=False)


class Trainer:
    """Submits trainings, a few at a time, and looks at those that were accepted until they have ended."""

    # At most so many that have not ended: more would take the processor from everybody.
    _AT_ONCE = 2
    # Seconds for those that are left at the end. Who takes over from a killed replica waits for its lease first.
    _SECONDS = 90.0
    # What a job may end with: it is done, or its services or processes were lost too often.
    _ENDED = ("completed", "failed WORKER_LOST", "failed WORKER_KILLED")

    def __init__(self, url: str, key: str, history: History) -> None:
        self.name = "jobs"
        self._rest = Rest(url, key)
        self._history = history
        self._config = ""
        self._running: list[str] = []
        self._ended: dict[str, str] = {}

    def act(self) -> None:
        if not self._config:
            made = self._rest.call("POST", "/api/v1/configs", {"name": secrets.token_hex(4), "data": {}})
            self._config = made["id"]
        if len(self._running) < self._AT_ONCE:
            table = {"columns": ["x", "y"], "data": [[1, 2], [2, 4], [3, 6]]}
            submitted = self._rest.call("POST", "/api/v1/ml/$train", {"config_id": self._config, "data": table})
            self._running.append(submitted["job_id"])
        time.sleep(0.3)
        self._look(self._running[0])
        if self._ended:
            self._look(secrets.choice(list(self._ended)))

    def _look(self, job_id: str) -> None:
        try:
            job = self._rest.call("GET", f"/api/v1/jobs/{job_id}")
        except Failed as error:
            if error.reason == "JOB_NOT_FOUND":
                self._history.violate(f"job {job_id} was accepted and is gone")
            raise
        state = " ".join(filter(None, (job["status"], job["reason"])))
        if before := self._ended.get(job_id):
            if state != before:
                self._history.violate(f"job {job_id} was {before} and is {state}")
        elif job["status"] in ("completed", "failed", "canceled"):
            self._running.remove(job_id)
            self._ended[job_id] = state
            if state not in self._ENDED:
                self._history.violate(f"job {job_id} has ended with {state}: {job['result']}")
        elif self._running[0] == job_id:
            self._running.append(self._running.pop(0))

    def settle(self) -> None:
        until = time.monotonic() + self._SECONDS
        while self._running and time.monotonic() < until:
            self._look(self._running[0])
            time.sleep(0.2)
        if self._running:
            self._history.violate(f"{self._SECONDS:g} s after all was well jobs have not ended: {self._running}")
        for job_id in self._ended:
            self._look(job_id)
        self._rest.close()


class Collector:
    """Collects garbage at once, without the patience that protects nobody here."""

    def __init__(self, url: str, key: str) -> None:
        self.name = "garbage"
        self._client = Client(url, api_key=key)

    def act(self) -> None:
        _told(lambda: self._client.admin.collect_garbage(min_age_seconds=0))
        time.sleep(0.5)

    def settle(self) -> None:
        _told(lambda: self._client.admin.collect_garbage(min_age_seconds=0))
        self._client.close()


def callers(url: str, key: str, history: History, folder: Path) -> list[Caller]:
    """The mixed load."""
    return [
        *(Writer(url, key, history, number) for number in (1, 2)),
        *(Pusher(url, key, history, number, folder) for number in (1, 2)),
        KeyHolder(url, key, history, 1),
        Trainer(url, key, history),
        Collector(url, key),
    ]


def _told(step: Callable[[], Any]) -> None:
    """Does it; what the client raises becomes Failed."""
    try:
        step()
    except StrongroomError as error:
        status = 503 if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED") else 400
        raise Failed(status, error.reason or error.code, error.message) from None
