"""Empty databases at their newest schema: migrating each anew is a third of what starting a service in a test costs."""

import tempfile
from functools import cache
from pathlib import Path

import services
from services.shared.database import Database

_SERVICES = Path(services.__path__[0])


def put_databases(folder: Path, *names: str) -> None:
    """Writes the SQLite files that these services find at `sqlite:///<folder>/db/strongroom.db`, unless they exist."""
    (folder / "db").mkdir(exist_ok=True, mode=0o700)
    for name in names:
        file = folder / "db" / f"strongroom-{name}.db"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_bytes(_migrated(name))


@cache
def _migrated(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "strongroom.db")
        Database.open(f"sqlite:///{file}", service=name, migrations=_SERVICES / name / "migrations").close()
        return file.with_name(f"strongroom-{name}.db").read_bytes()
