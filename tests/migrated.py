"""New databases whose schema is up to date: to bring one there is half of what an installation costs."""

import stat
import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy.engine import make_url

from services.shared.database import Database, sqlite_file

_MIGRATIONS = Path(__file__).parents[1] / "services"


def migrated(url: str, service: str) -> str:
    """The URL, where the service now finds its tables, and nothing in them; PostgreSQL and what is there stay."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not (file := sqlite_file(parsed, service)).exists():
        file.parent.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        file.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        file.write_bytes(_new(service))
    return url


@cache
def _new(service: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/new.db"
        Database.open(url, service=service, migrations=_MIGRATIONS / service / "migrations").close()
        [file] = Path(folder).iterdir()
        return file.read_bytes()
