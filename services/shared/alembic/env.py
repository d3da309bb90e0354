"""Alembic's entry: runs the migrations of one service in the transaction that `Database` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, transaction_per_migration=False, render_as_batch=connection.dialect.name == "sqlite"
)
context.run_migrations()
