"""Tables by reference: Parquet files among the stored versions, named where a table would stand.

What a file says of itself is asked in a job's process, which sees its footer alone; the service never parses one.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.models.jobs.data_tables import TableInvalid, require
from services.models.jobs.links import FolderFull, Place, ProcessKilled
from services.models.jobs.process import Process, ProcessTimeout
from services.models.jobs.queue import QueueFull
from services.models.manifest_store import ManifestStore
from services.models.manifests import ManifestFile
from services.models.reads import FileNotFound, OpenRange, Reader, within
from services.models.runners.frames import FrameBroken
from services.models.versions import Versions
from services.shared.errors import FailedPrecondition, InvalidArgument, PermissionMissing
from services.shared.identity import Principal

_ADDRESS = re.compile(
    r"strongroom://([A-Za-z0-9._-]{1,128})/([A-Za-z0-9._-]{1,128})(?:/([A-Za-z0-9._-]{1,128})(?:/(.+))?)?"
)
_MOST_COLUMNS, _LONGEST_NAME = 1000, 256
# Looks at files at a time, and seconds of one; and how many wait, each with one of the service's threads.
_LOOKS, _LOOK_SECONDS = 2, 20.0
_WAITING = 6
_KINDS = ("number", "text", "boolean", "null")


class TableAddressInvalid(InvalidArgument):
    """It names no file, or no place for one."""

    reason = "TABLE_ADDRESS_INVALID"


class TableProtected(FailedPrecondition):
    """The version takes an access code, which no job has."""

    reason = "TABLE_PROTECTED"


@dataclass(frozen=True)
class Address:
    """What `strongroom://MANAGER/MODEL/VERSION/PATH` names; without a path the version's only file."""

    manager_id: str
    model_name: str
    version: str = ""
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Raises TableAddressInvalid."""
        found = _ADDRESS.fullmatch(url)
        if found is None or {".", ".."} & set(found.groups()):
            raise TableAddressInvalid("An address of a table looks like strongroom://MANAGER/MODEL/VERSION/PATH.")
        return cls(*(part or "" for part in found.groups()))

    def __str__(self) -> str:
        parts = (self.manager_id, self.model_name, self.version, self.path)
        return "strongroom://" + "/".join(filter(None, parts))

    def require(self, caller: Principal, permission: str) -> None:
        """Raises PermissionMissing."""
        resource = f"managers/{self.manager_id}/models/{self.model_name}"
        if not caller.allows(permission, resource):
            raise PermissionMissing(permission, resource)


@dataclass(frozen=True)
class StoredTable:
    """A table that is a Parquet file, as its footer describes it: `kinds` by column, `size` in bytes."""

    address: Address
    sha256: bytes
    size: int
    columns: Sequence[str]
    kinds: Sequence[str] = field(repr=False)
    count: int

    def check(self, where: str) -> None:
        """Raises TableInvalid."""
        if len(set(self.columns)) != len(self.columns):
            raise TableInvalid(f"{where} has a column twice.")
        if len(self.columns) > _MOST_COLUMNS:
            raise TableInvalid(f"{where} has more than {_MOST_COLUMNS} columns.")
        if any(not 0 < len(name) <= _LONGEST_NAME for name in self.columns):
            raise TableInvalid(f"{where} has a column whose name is empty or longer than {_LONGEST_NAME}.")

    def require(self, where: str, columns: Sequence[str]) -> None:
        """Raises ColumnsMissing, TableInvalid if one of them holds neither numbers nor text nor booleans."""
        require(self.columns, where, columns)
        of = dict(zip(self.columns, self.kinds, strict=True))
        for name in columns:
            if of[name] not in _KINDS:
                message = f"The column '{name}' of {where} is {of[name]}: columns hold numbers, text or booleans."
                raise TableInvalid(message, columns=name)

    def as_json(self) -> dict[str, Any]:
        """As a job's process takes it, which asks for the bytes."""
        of = {"url": str(self.address), "sha256": self.sha256.hex()}
        return {"columns": list(self.columns), "bytes": self.size, "rows": self.count, **of}

    def origin(self) -> dict[str, Any]:
        """What tells which data it was: where it is, and SHA-256 of the file."""
        return {"data_url": str(self.address), "data_sha256": self.sha256.hex()}


class StoredTables:
    """Finds tables, and reads them.

    Args:
        describe: has a process look at a file of so many bytes, of which it may read ranges. Raises TableInvalid.
    """

    def __init__(
        self,
        reader: Reader,
        versions: Versions,
        manifests: ManifestStore,
        describe: Callable[[int, "OpenTable"], Mapping[str, Any]],
    ) -> None:
        self._reader = reader
        self._versions = versions
        self._manifests = manifests
        self._describe = describe

    def find(self, caller: Principal, url: str, where: str) -> StoredTable:
        """The table at an address.

        Raises TableAddressInvalid, PermissionMissing, VersionNotFound, FileNotFound, TableProtected, TableInvalid,
        QueueFull.
        """
        address = Address.parse(url)
        if not address.version:
            raise TableAddressInvalid(f"{where} names no version.")
        address.require(caller, "models.read")
        address, file = self._file(address)
        opened = self.open(address)
        told = _told(self._describe(file.size, opened), where)
        return StoredTable(address, file.sha256, file.size, *told)

    def open(self, address: Address, sha256: str = "") -> "OpenTable":
        """The file; the one with that digest, if it is given: a version may be deleted and another take its name.

        Raises VersionNotFound, FileNotFound, TableInvalid.
        """
        if sha256 and self._file(address)[1].sha256.hex() != sha256:
            raise TableInvalid(f"{address} is another file than it was when the job was submitted.")
        names = (address.manager_id, address.model_name, address.version, address.path)
        return OpenTable(self._reader, self._reader.open(*names, 0, None))

    def _file(self, address: Address) -> tuple[Address, ManifestFile]:
        """The file, and its address with the version's own name."""
        found = self._versions.find(address.manager_id, address.model_name, address.version)
        if found.protected:
            message = f"Version '{found.name}' takes an access code, and jobs have none: store the table without one."
            raise TableProtected(message, version=found.name)
        files = self._manifests.load(found, None).files
        named = [file for file in files if file.path == address.path] if address.path else files
        if len(named) != 1:
            message = f"Version '{found.name}' has {len(files)} files: name one of them behind the version."
            raise FileNotFound(message, version=found.name)
        return Address(found.manager_id, found.model_name, found.name, named[0].path), named[0]


class OpenTable:
    """A file whose ranges can be read, each decrypted and verified."""

    def __init__(self, reader: Reader, opened: OpenRange) -> None:
        self._reader = reader
        self._opened = opened

    def read(self, offset: int, length: int) -> Iterator[memoryview]:
        """What lies there; nothing behind the end. Raises DataLoss, VersionNotFound."""
        end = min(self._opened.length, offset + length)
        return self._reader.read(within(self._opened, offset, end)) if offset < end else iter(())


class Footers:
    """Has processes look at files: a few at a time, for each takes its memory."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._free = threading.BoundedSemaphore(_LOOKS)
        self._room = threading.BoundedSemaphore(_LOOKS + _WAITING)

    def describe(self, size: int, table: OpenTable) -> Mapping[str, Any]:
        """What a file of that size says of itself, or how that failed. Raises QueueFull, and what reading it raises."""
        if not self._room.acquire(blocking=False):
            raise QueueFull("Too many tables are being looked at. Try again later.", retry_after=5.0)
        try:
            return self._look(size, table)
        finally:
            self._room.release()

    def _look(self, size: int, table: OpenTable) -> Mapping[str, Any]:
        # Born without scikit-learn: nobody waits for that who only submits.
        process = Process(self._place, {"operation": "look", "bytes": size}, _LOOK_SECONDS, load=False)
        with self._free:
            try:
                return process.run(lambda: None, ranges=lambda _name, offset, length: table.read(offset, length))
            except (ProcessKilled, ProcessTimeout, FolderFull, FrameBroken) as error:
                return {"failed": "LOOK_FAILED", "message": f"it ends its reader ({type(error).__name__})."}


def _told(answer: Mapping[str, Any], where: str) -> tuple[list[str], list[str], int]:
    """Columns, their kinds, and how many rows: a process says so that may be anybody's by now. Raises TableInvalid."""
    if "failed" in answer:
        raise TableInvalid(f"{where} cannot be read: {str(answer.get('message'))[:300]}")
    columns, rows = answer.get("columns"), answer.get("rows")
    if not isinstance(columns, list) or type(rows) is not int or rows < 0:
        raise TableInvalid(f"{where} cannot be read.")
    try:
        names, kinds = [str(column["name"]) for column in columns], [str(column["kind"])[:100] for column in columns]
    except (KeyError, TypeError):
        raise TableInvalid(f"{where} cannot be read.") from None
    return names, kinds, rows
