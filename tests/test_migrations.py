"""Every schema is made by migrations, which a service runs at its start: from nothing, and from every earlier one."""

import importlib
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.shared.database import Database
from tests.postgresql import Server

pytestmark = pytest.mark.row("S2.7")

SERVICES = ("auth", "models", "secrets")
REPOSITORY = Path(__file__).resolve().parent.parent


def folder(service: str) -> Path:
    return REPOSITORY / "services" / service / "migrations"


def revisions(service: str) -> list[Path]:
    return sorted((folder(service) / "versions").glob("[0-9]*_*.py"))


def differences(database: Database, service: str) -> list[object]:
    """Between the tables of the database and those that the service's modules declare."""
    # Some declare theirs beside what uses them.
    for module in (REPOSITORY / "services" / service).rglob("*tables.py"):
        importlib.import_module(".".join(module.relative_to(REPOSITORY).with_suffix("").parts))
    declared: sa.MetaData = importlib.import_module(f"services.{service}.tables").METADATA
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, declared))


@pytest.mark.parametrize("service", SERVICES)
def test_the_migrations_give_the_tables_of_the_code(database_url: str, service: str) -> None:
    database = Database.open(database_url, service=service, migrations=folder(service))
    assert differences(database, service) == []
    database.close()


@pytest.mark.parametrize("service", SERVICES)
def test_every_earlier_schema_is_brought_up_to_date_and_a_second_start_changes_nothing(
    tmp_path: Path, service: str
) -> None:
    for count in range(1, len(revisions(service)) + 1):
        earlier = tmp_path / str(count)
        (earlier / "versions").mkdir(parents=True)
        for revision in revisions(service)[:count]:
            shutil.copy(revision, earlier / "versions")
        database_url = f"sqlite:///{earlier}/schema.db"
        for migrations in (earlier, folder(service), folder(service)):
            database = Database.open(database_url, service=service, migrations=migrations)
            with database.read() as connection:
                at = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            database.close()
        assert at == revisions(service)[-1].name.partition("_")[0]
        assert differences(Database(sa.create_engine(f"sqlite:///{earlier}/schema-{service}.db")), service) == []


@pytest.mark.parametrize("service", SERVICES)
def test_each_migration_follows_the_one_before_on_postgresql(
    tmp_path: Path, postgresql_server: Server, service: str
) -> None:
    """One database that goes through every version there was: each finds the schema as the last start left it."""
    database_url = postgresql_server.create_database()
    for revision in revisions(service):
        (tmp_path / "versions").mkdir(exist_ok=True)
        shutil.copy(revision, tmp_path / "versions")
        database = Database.open(database_url, service=service, migrations=tmp_path)
        with database.read() as connection:
            at = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        assert at == revision.name.partition("_")[0]
        if revision == revisions(service)[-1]:
            assert differences(database, service) == []
        database.close()
