"""The migrations build what the code expects."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import services.models
from services.models.catalog_tables import METADATA
from services.shared.database import Database


def test_the_migrations_give_the_tables_of_the_code(tmp_path: Path) -> None:
    migrations = Path(services.models.__file__).parent / "migrations"
    database = Database.open(f"sqlite:///{tmp_path}/x.db", service="models", migrations=migrations)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    database.close()
