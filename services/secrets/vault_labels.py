"""Labels of secrets: readable by who may list them, and found by. They are not encrypted."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.secrets.tables import secret_labels
from services.secrets.vault_errors import LabelsInvalid

MOST = 32


def replace(connection: Connection, name: str, labels: Mapping[str, str]) -> None:
    """Gives a secret these labels and no other. Raises LabelsInvalid."""
    if len(labels) > MOST:
        raise LabelsInvalid(f"A secret has at most {MOST} labels.")
    connection.execute(sa.delete(secret_labels).where(secret_labels.c.secret_name == name))
    rows = [{"secret_name": name, "key": key, "value": value} for key, value in labels.items()]
    if rows:
        connection.execute(sa.insert(secret_labels), rows)


def change(connection: Connection, name: str, added: Mapping[str, str], removed: Sequence[str]) -> None:
    """Takes labels away, then adds others or gives them new values. Raises LabelsInvalid."""
    if added or removed:
        kept = {key: value for key, value in of(connection, [name])[name].items() if key not in removed}
        replace(connection, name, kept | dict(added))


def of(connection: Connection, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The labels of each of these secrets."""
    labels: dict[str, dict[str, str]] = {name: {} for name in names}
    c = secret_labels.c
    for row in connection.execute(sa.select(secret_labels).where(c.secret_name.in_(labels)).order_by(c.key)):
        labels[row.secret_name][row.key] = row.value
    return labels
