"""The built-in runner: allow-listed scikit-learn estimators, alone or at the end of a pipeline.

Text columns become one column for each of their values; null is a missing value, which `SimpleImputer` fills in.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from services.models.runners import scikit_parameters as allowed
from strongroom.runners import Cell, Table, Task

SAMPLE = "sample_0"


class ScikitRunner:
    """Trains what `scikit_parameters` allows. The task's config has `features` and `target` as they were resolved."""

    schema: ClassVar[Mapping[str, Any]] = allowed.SCHEMA
    trusted: ClassVar[Sequence[str]] = (
        "numpy.dtype",  # of what SimpleImputer was fitted with
        "sklearn.tree._tree.Tree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.ChebyshevDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn.ensemble._gb.GradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    )

    def train(self, task: Task, data: Table) -> Any:
        config = task.config
        text = [at for at, name in enumerate(config["features"]) if data.has_text(name)]
        features, model = _features(data, config["features"], text=bool(text)), _model(config, text)
        target = config["target"]
        return model.fit(features) if target is None else model.fit(features, _target(data.column(target)))

    def predict(self, task: Task, model: Any, historic: Table, future: Table) -> Table:
        names = task.config["features"]
        text = any(map(future.has_text, names))

        def predicted(batch: Table) -> Table:
            values = model.predict(_features(batch, names, text=text)).tolist() if len(batch) else []
            return batch.with_column(SAMPLE, values)

        return future.map(predicted)


def _model(config: Mapping[str, Any], text: list[int]) -> Any:
    """The estimator; a pipeline if something comes before it."""
    estimator = _made(allowed.ESTIMATORS, config.get("estimator", allowed.DEFAULT), config.get("parameters", {}))
    steps = [
        _made(allowed.TRANSFORMERS, step["transformer"], step.get("parameters", {})) for step in config.get("steps", ())
    ]
    if text:
        steps.insert(0, _encoder(text))
    if not steps:
        return estimator
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*steps, estimator)


def _made(of: Mapping[str, tuple[str, Any]], name: str, parameters: Mapping[str, Any]) -> Any:
    # Looked up in the list, so that a config names nothing else, whoever checked it before.
    module, known = of[name]
    if not parameters.keys() <= known.keys():
        raise ValueError(f"{name} has parameters that are not allowed.")
    return getattr(import_module(f"sklearn.{module}"), name)(**parameters)


def _encoder(text: list[int]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("text", one_hot, text)], remainder="passthrough", sparse_threshold=0)


def _features(table: Table, names: Sequence[str], *, text: bool) -> Any:
    """An array with a row for each of the table's: of objects if there is text, else of floats."""
    made = np.empty((len(table), len(names)), dtype=object if text else float)
    start = 0
    for batch in table.batches():
        for at, name in enumerate(names):
            made[start : start + len(batch), at] = batch.column(name) if text else batch.numbers(name)
        start += len(batch)
    return made


def _target(values: list[Cell]) -> Any:
    if any(value is None for value in values):
        raise ValueError("The target has null in some rows: leave those out.")
    return np.array(values)
