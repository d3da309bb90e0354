"""Configuration in YAML files: strict, bounded, and with secrets by reference alone.

A secret stands in a file or in the environment; the configuration says where.
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 8
_MOST_ERRORS = 5
# Names that an error repeats: anything else could be a secret in the wrong place.
_SHOWN = re.compile(r"[A-Za-z_]{1,24}|[a-z0-9][a-z0-9-]{0,31}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,255}(/[A-Za-z0-9._/-]{0,255})?")


class ConfigurationError(ValueError):
    """A configuration can't be used. The message says where and why, and has no secret."""


class Strict(BaseModel):
    """Known fields alone, and no values in errors: a misspelt field could hold a secret in the wrong place."""

    # Most installations have none of these files: a model is built once there is something to check with it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


def _endpoint(url: str) -> str:
    if not _ENDPOINT.fullmatch(url):
        raise ValueError("write https://HOST[:PORT], without user, query or fragment")
    return url.rstrip("/")


def _possible_path(path: Path) -> Path:
    if "\0" in str(path) or len(str(path)) > 4000:
        raise ValueError("no file can have this path")
    return path


FilePath = Annotated[Path, AfterValidator(_possible_path)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
# Folders of keys, and no slash at either end.
Prefix = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,7})?$")]


class SecretReference(Strict):
    """Where a secret is: in a file or in a variable of the environment."""

    file: FilePath | None = None
    environment: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.environment is None):
            raise ValueError("name a file or a variable of the environment: {file: PATH} or {environment: NAME}")
        return self

    def read(self) -> str:
        """The secret, without white space around it. Raises ConfigurationError."""
        if self.environment is not None:
            where, text = f"The variable {self.environment}", os.environ.get(self.environment, "")
        else:
            assert self.file is not None
            where, text = str(self.file), _private_text(self.file)
        if not text.strip():
            raise ConfigurationError(f"{where} is empty; it shall hold a credential.")
        return text.strip()


class Server(Strict):
    """What is reached over the network; where, says its field `endpoint`."""

    # Plain HTTP shows credentials and names to the network: only where it is said to be wanted, or on this machine.
    allow_http: bool = False

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        url = urlsplit(getattr(self, "endpoint", None) or "")
        if url.scheme == "http" and url.hostname not in _LOOPBACK and not self.allow_http:
            raise ValueError("the endpoint is plain HTTP; use https:// or say allow_http: true")
        return self


class Remote(Server):
    """What is reached over the network, below a prefix of its own."""

    # Everything is below it, so that several installations may share a place.
    prefix: Prefix = ""


_Model = TypeVar("_Model", bound=Strict)


def _as_it_is(fields: Any) -> Any:
    return fields


def load(file: Path, model: type[_Model], translated: Callable[[Any], Any] = _as_it_is) -> _Model:
    """The configuration in a file. Raises ConfigurationError, with what is wrong and none of the values.

    Args:
        translated: turns what a file of another form has into fields of the model.
    """
    text = bounded_text(file)
    try:
        return parse(text, model, translated)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def parse(text: str, model: type[_Model], translated: Callable[[Any], Any] = _as_it_is) -> _Model:
    """The configuration, its paths as they are written. ConfigurationError, of one line."""
    try:
        fields = yaml.load(text, Loader=_Plain)  # noqa: S506 - a SafeLoader
    # Scalars that look like a date or a number and are none raise whatever their constructor does.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise ConfigurationError("not YAML, or a field is named twice, or it has aliases or tags") from None
    try:
        return model.model_validate(translated(fields))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        wrong = [_told(item) for item in errors[:_MOST_ERRORS]]
        more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        raise ConfigurationError("; ".join([*wrong, *more])) from None


def _told(error: ErrorDetails) -> str:
    names = [str(name) if _SHOWN.fullmatch(str(name)) else "…" for name in error["loc"]]
    message = error["msg"]
    if error["type"] == "union_tag_invalid":  # pydantic repeats what it found
        expected = error["ctx"]
        message = f"{expected['discriminator']} is one of {expected['expected_tags']}".replace("'", "")
    return f"{'.'.join(names) or 'file'}: {message}"


class _Plain(yaml.SafeLoader):
    """YAML of text, numbers, lists and mappings, a few deep.

    No mapping has a key twice: of two entries with one name, PyYAML would take the last. There are no aliases, by which
    a small file grows without end in merges and keys ("billion laughs"), and no tags.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or getattr(event, "tag", None):
            raise yaml.composer.ComposerError(problem="aliases and tags have no use here")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.composer.ComposerError(problem="nothing is so deep here")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise yaml.constructor.ConstructorError(problem="a field is there twice, or is not text")
        return super().construct_mapping(node, deep)


def bounded_text(file: Path) -> str:
    """At most 64 KiB of a file. Raises ConfigurationError."""
    try:
        # A pipe would keep whoever reads it waiting.
        if not stat.S_ISREG(file.stat().st_mode):
            raise ConfigurationError(f"{file} is not a file")
        with file.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigurationError(f"{file} is larger than {_MAX_BYTES} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} can't be read ({type(error).__name__})") from None


def _private_text(file: Path) -> str:
    """A file for its owner alone, or on a read-only mount, as orchestrators mount secrets. ConfigurationError."""
    try:
        open_to_others = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        read_only = os.statvfs(file).f_flag & os.ST_RDONLY
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read ({type(error).__name__})") from None
    if open_to_others and not read_only:
        raise ConfigurationError(f"{file} may be read by others; run: chmod 600 {file}")
    return bounded_text(file)
