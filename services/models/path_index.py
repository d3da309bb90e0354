"""Which file of which version stands at a path of a manager."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from services.models import tables as t
from services.models.versions import Version, hold
from services.shared.database import Database


@dataclass(frozen=True)
class PathEntry:
    """What stands at a path: names of model and version, the version's `uid`, the file's path in it."""

    path: str
    model_name: str
    version: str
    version_uid: str
    file: str


class PathIndex:
    """Paths and what they stand for."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def find(self, manager_id: str, path: str) -> PathEntry | None:
        with self._database.read() as connection:
            row = connection.execute(_BY_PATH, {"manager": manager_id, "path": path}).one_or_none()
        return None if row is None else PathEntry(path, *row)

    def put(self, version: Version, files: dict[str, str]) -> None:
        """Saves files of a version: path → path in the version. What stood there before stays a version.

        Raises VersionNotFound if the version was deleted just now.
        """
        with self._database.write() as connection:
            hold(connection, version)
            for path, file in sorted(files.items()):
                values = {"version": version.id, "file": file, "uploaded": False, "updated_at": self._clock()}
                row = {"manager_id": version.manager_id, "path": path, **values}
                t.insert_or_set(connection, t.manager_paths, [row], **values)

    def put_upload(self, version: Version, candidates: list[str], file: str) -> str:
        """Puts an upload at the first of the paths where nothing stands yet, and returns it.

        Raises VersionNotFound if the version was deleted just now.
        """
        values = {"version": version.id, "file": file, "uploaded": True, "updated_at": self._clock()}
        with self._database.write() as connection:
            hold(connection, version)
            for path in candidates:
                row = {"manager_id": version.manager_id, "path": path, **values}
                t.insert_missing(connection, t.manager_paths, [row])
                there = connection.execute(_BY_PATH, {"manager": version.manager_id, "path": path}).one()
                if there.uid == version.uid:
                    return path
        raise AssertionError("a path with the version's own id is free")

    def move(self, old: Version, new: Version) -> None:
        """Lets all paths of a version stand for another one that has the same files. Raises VersionNotFound."""
        with self._database.write() as connection:
            hold(connection, new)
            paths = sa.update(t.manager_paths).where(t.manager_paths.c.version == old.id)
            connection.execute(paths.values(version=new.id))

    def uploads(self, manager_id: str, model_name: str) -> list[str]:
        """The names of the model's versions that UploadModel stored and that stand nowhere else."""
        saved = sa.select(t.manager_paths.c.version).where(~t.manager_paths.c.uploaded)
        query = (
            sa.select(t.versions.c.name)
            .join(t.models, t.models.c.id == t.versions.c.model_id)
            .join(t.manager_paths, t.manager_paths.c.version == t.versions.c.id)
            .where(t.models.c.manager_id == manager_id, t.models.c.name == model_name)
            .where(t.manager_paths.c.uploaded, t.versions.c.id.not_in(saved))
            .distinct()
        )
        with self._database.read() as connection:
            return list(connection.scalars(query))


_BY_PATH = (
    sa.select(t.models.c.name.label("model"), t.versions.c.name, t.versions.c.uid, t.manager_paths.c.file)
    .join(t.versions, t.versions.c.id == t.manager_paths.c.version)
    .join(t.models, t.models.c.id == t.versions.c.model_id)
    .where(t.manager_paths.c.manager_id == sa.bindparam("manager"), t.manager_paths.c.path == sa.bindparam("path"))
)
