"""Which runners there are. Their code is never loaded here: a process of a job's kind tells what they take."""

import json
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from jsonschema import Draft202012Validator

from services.models.runners.scikit_parameters import SCHEMA as SCIKIT_SCHEMA
from services.shared.errors import FailedPrecondition, InvalidArgument, NotFound

GROUP = "strongroom.runners"
BUILT_IN = "sklearn"
_PLACES = {BUILT_IN: "services.models.runners.scikit:ScikitRunner"}
_NAME = r"^[A-Za-z0-9._-]{1,128}$"

# What Strongroom itself reads of a config's data, whichever the runner.
_OWN: Mapping[str, Any] = {
    "runner": {"type": "string", "default": BUILT_IN, "description": "Which of the installed runners."},
    "features": {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
        "minItems": 1,
        "maxItems": 1000,
        "uniqueItems": True,
        "description": "Columns to learn from; all but the target if left out.",
    },
    "target": {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": 256,
        "description": "The column to predict; the last one if left out, none if null.",
    },
    "manager_id": {"type": "string", "pattern": _NAME, "default": "default", "description": "Who keeps the model."},
    "model_name": {"type": "string", "pattern": _NAME, "description": "Of which model the result is a version."},
    "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 7 * 86400, "description": "For one job."},
}


class RunnerNotFound(NotFound):
    """No runner of that name is installed."""

    reason = "RUNNER_NOT_FOUND"


class RunnerUnusable(FailedPrecondition):
    """A runner is installed and does not say what it takes."""

    reason = "RUNNER_UNUSABLE"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"The runner at {place} cannot be used: {why[:300]}.", runner=place)


class ConfigInvalid(InvalidArgument):
    """A config's data breaks the schema; `path` says where."""

    reason = "CONFIG_INVALID"


class RunnerCatalog:
    """The built-in runner and those of installed packages, of which none takes the built-in's name.

    Args:
        describe: asks a runner, by its place `module:name`, for its schema.
    """

    def __init__(self, describe: Callable[[str], Mapping[str, Any]]) -> None:
        self._describe = describe
        self._schemas: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()

    def place(self, name: str) -> str:
        """Where its code is: `module:name`. Raises RunnerNotFound."""
        if name not in self._places:
            there = ", ".join(sorted(self._places))
            raise RunnerNotFound(f"There is no runner '{name}'. There are: {there}.", runner=name)
        return self._places[name]

    @cached_property
    def _places(self) -> Mapping[str, str]:
        installed = {point.name: f"{point.module}:{point.attr}" for point in entry_points(group=GROUP)}
        return installed | _PLACES

    def schema(self, name: str = "") -> Mapping[str, Any]:
        """The JSON schema of a config's data. Raises RunnerNotFound."""
        name = name or BUILT_IN
        place = self.place(name)
        with self._lock:
            if name not in self._schemas:
                theirs = SCIKIT_SCHEMA if name == BUILT_IN else self._describe(place)
                self._schemas[name] = _with_own(name, theirs)
            return self._schemas[name]

    def check(self, data: Mapping[str, Any]) -> None:
        """Raises ConfigInvalid, RunnerNotFound."""
        runner = data.get("runner", BUILT_IN)
        if not isinstance(runner, str):
            raise ConfigInvalid("data.runner must be a name.", path="runner")
        validator = Draft202012Validator(self.schema(runner))
        # The one that says most: of alternatives, the deepest.
        error = min(validator.iter_errors(data), key=lambda found: list(map(str, found.absolute_path)), default=None)
        if error is not None:
            path = ".".join(["data", *map(str, error.absolute_path)])
            # A message repeats the value, which may be long.
            raise ConfigInvalid(f"{path}: {error.message[:300]}.", path=path)


def is_built_in(place: str) -> bool:
    """Whether that place is the built-in runner's."""
    return place == _PLACES[BUILT_IN]


def _with_own(name: str, theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A runner's schema with what Strongroom reads, and nothing beyond."""
    schema: dict[str, Any] = json.loads(json.dumps(theirs))
    own = {**_OWN, "runner": {**_OWN["runner"], "const": name}}
    if name == BUILT_IN:
        del own["runner"]["const"]
        own["runner"]["enum"] = [BUILT_IN]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"A config of the runner {name}"
    schema["type"] = "object"
    schema["properties"] = {**schema.get("properties", {}), **own}
    schema["additionalProperties"] = False
    Draft202012Validator.check_schema(schema)
    return schema
