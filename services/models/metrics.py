"""Metrics of versions, and the best model by one of them."""

import math
from collections.abc import Callable, Mapping
from contextlib import closing

import sqlalchemy as sa

from services.models import tables as t
from services.models import versions
from services.models.managers import Managers
from services.shared.database import Database
from services.shared.errors import InvalidArgument

# Errors: the less, the better. Of every other metric more is better.
LOWER_IS_BETTER = frozenset({"mse", "mae", "rmse", "log_loss"})


MOST_METRICS = 1000


class MetricInvalid(InvalidArgument):
    """A metric that cannot be compared, or one too many."""

    reason = "METRIC_INVALID"


class Metrics:
    """What was measured of versions."""

    def __init__(self, database: Database, managers: Managers) -> None:
        self._database = database
        self._managers = managers

    def record(self, manager_id: str, model_name: str, version: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """Sets metrics of a version and returns all it has; those that are not named stay.

        Raises MetricInvalid, ManagerNotFound, ModelNotFound, VersionNotFound.
        """
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise MetricInvalid("A metric is a number, neither infinite nor NaN.", metric=name)
        self._managers.get(manager_id)
        with self._database.write() as connection:
            found = versions.find(connection, manager_id, model_name, version)
            versions.hold(connection, found)
            for name, value in sorted(metrics.items()):
                row = {"version": found.id, "name": name, "value": value}
                t.insert_or_set(connection, t.version_metrics, [row], value=value)
            recorded = _metrics(connection, found.id)
            if len(recorded) > MOST_METRICS:
                raise MetricInvalid(f"A version has at most {MOST_METRICS} metrics.")
        return recorded

    def get(self, manager_id: str, model_name: str, version: str) -> dict[str, float]:
        """The metrics of a version by name. Raises ManagerNotFound, ModelNotFound, VersionNotFound."""
        self._managers.get(manager_id)
        with self._database.read() as connection:
            return _metrics(connection, versions.find(connection, manager_id, model_name, version).id)


def _metrics(connection: sa.Connection, version: int) -> dict[str, float]:
    query = sa.select(t.version_metrics.c.name, t.version_metrics.c.value).where(t.version_metrics.c.version == version)
    return {row.name: row.value for row in connection.execute(query.order_by(t.version_metrics.c.name))}


def best_models(
    connection: sa.Connection, primary_metrics: Mapping[str, str], may_read: Callable[[str, str], bool]
) -> dict[str, str]:
    """The best model of each manager by its primary metric, over all versions; the older one of equals.

    Managers without a metric, or without a model that has it and that `may_read(manager, model)`, are left out.
    """
    best = {}
    for manager_id, metric in primary_metrics.items():
        if metric:
            query = _ranked(lower=metric in LOWER_IS_BETTER)
            with closing(connection.execute(query, {"manager": manager_id, "metric": metric})) as ranked:
                name = next((row.name for row in ranked if may_read(manager_id, row.name)), None)
            if name is not None:
                best[manager_id] = name
    return best


def _ranked(*, lower: bool) -> sa.Select[tuple[str]]:
    """The manager's models by their best value."""
    value = t.version_metrics.c.value
    best = sa.func.min(value).asc() if lower else sa.func.max(value).desc()
    return (
        sa.select(t.models.c.name)
        .join(t.versions, t.versions.c.model_id == t.models.c.id)
        .join(t.version_metrics, t.version_metrics.c.version == t.versions.c.id)
        .where(t.models.c.manager_id == sa.bindparam("manager"), t.version_metrics.c.name == sa.bindparam("metric"))
        .group_by(t.models.c.id, t.models.c.name)
        .order_by(best, t.models.c.id)
    )
