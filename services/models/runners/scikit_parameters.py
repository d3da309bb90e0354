"""Which scikit-learn estimators and transformers a config may name, and with which parameters: all others are refused.

Left out are parameters that take code, files or further processes (`n_jobs`, `memory`, callables). JSON schemas, draft
2020-12; nothing here imports scikit-learn.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_BOOLEAN: Schema = {"type": "boolean"}
_POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e12}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_SEED: Schema = {"type": ["integer", "null"], "minimum": 0, "maximum": 2**32 - 1}


def _count(most: int, least: int = 1) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _one_of(*values: str | None) -> Schema:
    return {"enum": list(values)}


_ITERATIONS = _count(1_000_000)
_DEPTH: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": 1000}
_FEATURES: Schema = {"anyOf": [_one_of("sqrt", "log2", None), _SHARE, _count(100_000)]}
_GAMMA: Schema = {"anyOf": [_one_of("scale", "auto"), _POSITIVE]}
_KERNEL = _one_of("linear", "poly", "rbf", "sigmoid")
_WEIGHT = _one_of("balanced", None)
_INTERCEPT: Schema = {"fit_intercept": _BOOLEAN}
_LINEAR: Schema = {**_INTERCEPT, "alpha": _POSITIVE, "max_iter": _ITERATIONS, "tol": _POSITIVE, "random_state": _SEED}
_TREE: Schema = {
    "max_depth": _DEPTH,
    "min_samples_split": _count(1_000_000, 2),
    "min_samples_leaf": _count(1_000_000),
    "max_features": _FEATURES,
    "random_state": _SEED,
}
_FOREST: Schema = {**_TREE, "n_estimators": _count(10_000), "bootstrap": _BOOLEAN}
_BOOSTING: Schema = {
    **{name: _TREE[name] for name in ("max_depth", "min_samples_split", "min_samples_leaf", "random_state")},
    "n_estimators": _count(10_000),
    "learning_rate": _POSITIVE,
    "subsample": _SHARE,
}
_HISTOGRAM: Schema = {
    "learning_rate": _POSITIVE,
    "max_iter": _count(10_000),
    "max_depth": _DEPTH,
    "max_leaf_nodes": {"type": ["integer", "null"], "minimum": 2, "maximum": 100_000},
    "l2_regularization": {"type": "number", "minimum": 0},
    "random_state": _SEED,
}
_NEIGHBORS: Schema = {
    "n_neighbors": _count(100_000),
    "weights": _one_of("uniform", "distance"),
    "metric": _one_of("minkowski", "euclidean", "manhattan", "chebyshev", "cosine"),
}
_VECTORS: Schema = {"C": _POSITIVE, "kernel": _KERNEL, "gamma": _GAMMA, "degree": _count(20), "tol": _POSITIVE}
_LAYERS: Schema = {
    "hidden_layer_sizes": {"type": "array", "items": _count(4096), "minItems": 1, "maxItems": 16},
    "activation": _one_of("identity", "logistic", "tanh", "relu"),
    "solver": _one_of("lbfgs", "sgd", "adam"),
    "alpha": _POSITIVE,
    "learning_rate_init": _POSITIVE,
    "max_iter": _ITERATIONS,
    "early_stopping": _BOOLEAN,
    "random_state": _SEED,
}

# By name: the module it is in, and its parameters.
ESTIMATORS: Mapping[str, tuple[str, Schema]] = {
    "LinearRegression": ("linear_model", {**_INTERCEPT, "positive": _BOOLEAN}),
    "Ridge": ("linear_model", {**_LINEAR, "positive": _BOOLEAN}),
    "Lasso": ("linear_model", {**_LINEAR, "positive": _BOOLEAN}),
    "ElasticNet": ("linear_model", {**_LINEAR, "l1_ratio": _SHARE, "positive": _BOOLEAN}),
    "LogisticRegression": (
        "linear_model",
        {
            **_INTERCEPT,
            "C": _POSITIVE,
            "class_weight": _WEIGHT,
            "max_iter": _ITERATIONS,
            "tol": _POSITIVE,
            "random_state": _SEED,
        },
    ),
    "DecisionTreeRegressor": ("tree", _TREE),
    "DecisionTreeClassifier": ("tree", {**_TREE, "class_weight": _WEIGHT}),
    "RandomForestRegressor": ("ensemble", _FOREST),
    "RandomForestClassifier": ("ensemble", {**_FOREST, "class_weight": _WEIGHT}),
    "ExtraTreesRegressor": ("ensemble", _FOREST),
    "ExtraTreesClassifier": ("ensemble", {**_FOREST, "class_weight": _WEIGHT}),
    "GradientBoostingRegressor": ("ensemble", _BOOSTING),
    "GradientBoostingClassifier": ("ensemble", _BOOSTING),
    "HistGradientBoostingRegressor": ("ensemble", _HISTOGRAM),
    "HistGradientBoostingClassifier": ("ensemble", _HISTOGRAM),
    "KNeighborsRegressor": ("neighbors", _NEIGHBORS),
    "KNeighborsClassifier": ("neighbors", _NEIGHBORS),
    "SVR": ("svm", {**_VECTORS, "epsilon": _POSITIVE}),
    "SVC": ("svm", {**_VECTORS, "class_weight": _WEIGHT, "random_state": _SEED}),
    "GaussianNB": ("naive_bayes", {"var_smoothing": _POSITIVE}),
    "MLPRegressor": ("neural_network", _LAYERS),
    "MLPClassifier": ("neural_network", _LAYERS),
    "KMeans": ("cluster", {"n_clusters": _count(10_000), "max_iter": _ITERATIONS, "random_state": _SEED}),
    "IsolationForest": (
        "ensemble",
        {"n_estimators": _count(10_000), "contamination": {"anyOf": [_one_of("auto"), _SHARE]}, "random_state": _SEED},
    ),
}

TRANSFORMERS: Mapping[str, tuple[str, Schema]] = {
    "StandardScaler": ("preprocessing", {"with_mean": _BOOLEAN, "with_std": _BOOLEAN}),
    "MinMaxScaler": ("preprocessing", {"clip": _BOOLEAN}),
    "RobustScaler": ("preprocessing", {"with_centering": _BOOLEAN, "with_scaling": _BOOLEAN}),
    "PolynomialFeatures": (
        "preprocessing",
        {"degree": _count(6), "interaction_only": _BOOLEAN, "include_bias": _BOOLEAN},
    ),
    "SimpleImputer": ("impute", {"strategy": _one_of("mean", "median", "most_frequent")}),
    "PCA": ("decomposition", {"n_components": _count(100_000), "whiten": _BOOLEAN, "random_state": _SEED}),
    "VarianceThreshold": ("feature_selection", {"threshold": {"type": "number", "minimum": 0}}),
}

DEFAULT = "LinearRegression"


def _parameters(of: Mapping[str, tuple[str, Schema]], key: str) -> list[Schema]:
    """For each name: which parameters it takes."""
    return [
        {
            "if": {"properties": {key: {"const": name}}, "required": [key]},
            "then": {"properties": {"parameters": {"properties": dict(schema), "additionalProperties": False}}},
        }
        for name, (_, schema) in of.items()
    ]


SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "estimator": {"enum": list(ESTIMATORS), "default": DEFAULT},
        "parameters": {"type": "object", "description": "Those of the estimator."},
        "steps": {
            "type": "array",
            "maxItems": 10,
            "description": "What the features pass through before the estimator, in order.",
            "items": {
                "type": "object",
                "properties": {"transformer": {"enum": list(TRANSFORMERS)}, "parameters": {"type": "object"}},
                "required": ["transformer"],
                "additionalProperties": False,
                "allOf": _parameters(TRANSFORMERS, "transformer"),
            },
        },
    },
    "allOf": [
        *_parameters(ESTIMATORS, "estimator"),
        {
            "if": {"not": {"required": ["estimator"]}},
            "then": {
                "properties": {
                    "parameters": {"properties": dict(ESTIMATORS[DEFAULT][1]), "additionalProperties": False}
                }
            },
        },
    ],
}
