"""The options that the Secret Management API documents: `secrets: {vault, model_weights, rotation}`.

`SecretManager` takes them as a dictionary, the services as a YAML file (docs/secret-manager.md). What is always on
can't be turned off here, and no option is overlooked: what is unknown is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from strongroom.errors import InvalidArgument

STORAGE_TYPES = ("aws", "gcp", "azure", "local")
AUTH_METHODS = ("kubernetes", "approle", "token")
_TOP = "secrets"
_CLIENT = "strongroom"
# Names that an error repeats: anything else could be a secret in the wrong place.
_SHOWN = re.compile(r"[a-z][a-z_]{0,31}")
_ALWAYS_ON = {
    "versioning_enabled": "every upload is a version of its own, and none is ever changed",
    "access_control_enabled": "nobody reads weights without a permission that says so",
    "encryption_enabled": "weights are encrypted before a store sees them",
}


@dataclass(frozen=True)
class VaultOptions:
    """A HashiCorp Vault or OpenBao that the service keeps secrets in, too."""

    enabled: bool = False
    address: str = ""
    auth_method: str = "kubernetes"


@dataclass(frozen=True)
class WeightOptions:
    """Where the service keeps weights. `storage_type` is the primary; empty: whatever the service has."""

    storage_type: str = ""
    s3_bucket: str = ""
    gcs_bucket: str = ""
    azure_container: str = ""
    sync_enabled: bool = True
    versioning_enabled: bool = True
    access_control_enabled: bool = True
    encryption_enabled: bool = True
    checksum_algorithm: str = "sha256"
    cache_enabled: bool = False
    cache_directory: str = "weights_cache"
    cache_max_size_gb: float = 10.0


@dataclass(frozen=True)
class RotationOptions:
    """Whether secrets are expected to rotate, and how often."""

    enabled: bool = False
    schedule: str = ""


@dataclass(frozen=True)
class ServiceOptions:
    """Which Strongroom, as whom, and in which of its managers weights are. What is empty the environment says."""

    url: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    manager: str = "default"


@dataclass(frozen=True)
class SecretOptions:
    """All of them; `given` are the names of those that were written down, such as `vault.address`."""

    vault: VaultOptions = VaultOptions()
    model_weights: WeightOptions = WeightOptions()
    rotation: RotationOptions = RotationOptions()
    strongroom: ServiceOptions = field(default=ServiceOptions(), repr=False)
    given: frozenset[str] = frozenset()


_SECTIONS = {"vault": VaultOptions, "model_weights": WeightOptions, "rotation": RotationOptions}
_Section = TypeVar("_Section", VaultOptions, WeightOptions, RotationOptions, ServiceOptions)


def is_documented(found: object) -> bool:
    """Whether a file's content has the document's form, and not that of another configuration of the services."""
    return isinstance(found, Mapping) and any(name in found for name in (_TOP, *_SECTIONS))


def parse(config: object) -> SecretOptions:
    """The options of a configuration, with the key `secrets` around them or without.

    Beside `secrets`, other sections are those of other programs. Raises InvalidArgument, which repeats no value.
    """
    everything = _mapping("The configuration", config)
    around = _TOP in everything
    inner = _mapping(_TOP, everything[_TOP]) if around else everything
    _refuse_unknown("", inner, [*_SECTIONS, _CLIENT] if around else [_TOP, *_SECTIONS, _CLIENT])
    if around:
        for name in _SECTIONS:
            if name in everything:
                raise refused(f"{name} stands beside {_TOP}: move it below.")
        _refuse_unknown("", [name for name in everything if _nearest(name, [_TOP, _CLIENT])], [_TOP, _CLIENT])
    client = inner.get(_CLIENT) or everything.get(_CLIENT)
    vault = _section(VaultOptions, "vault", inner.get("vault"))
    weights = _section(WeightOptions, "model_weights", inner.get("model_weights"))
    rotation = _section(RotationOptions, "rotation", inner.get("rotation"))
    given = frozenset(f"{name}.{option}" for name in _SECTIONS for option in inner.get(name) or ())
    _check_vault(vault)
    _check_weights(weights)
    if rotation.schedule and len(rotation.schedule.split()) != 5:
        raise refused("rotation.schedule: write five fields as in cron, such as 0 0 * * 0.")
    return SecretOptions(vault, weights, rotation, _section(ServiceOptions, _CLIENT, client), given)


def refused(message: str) -> InvalidArgument:
    """An option can't be obeyed."""
    return InvalidArgument(message, code="INVALID_ARGUMENT", reason="OPTION_INVALID")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that somebody may have meant, as the end of a sentence; the known ones if none is near."""
    known = list(known)
    near = _nearest(name, known)
    return f"Did you mean {near}?" if near else f"There are: {', '.join(known)}."


def _nearest(name: object, known: list[str]) -> str:
    return next(iter(get_close_matches(str(name), known, 1, 0.75)), "")


def _mapping(where: str, found: object) -> Mapping[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise refused(f"{where}: write options with their names.")
    return found


def _refuse_unknown(where: str, found: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in found:
        if name not in known:
            # What is near an option is a slip of the pen; anything else may be a value that got out of place.
            shown = name if _SHOWN.fullmatch(name) or _nearest(name, known) else "…"
            raise refused(f"There is no option {where}{shown}. {nearest(name, known)}")


def _section(kind: type[_Section], where: str, found: object) -> _Section:
    options = _mapping(where, found)
    defaults = {one.name: one.default for one in fields(kind)}
    _refuse_unknown(f"{where}.", options, defaults)
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        wanted = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(defaults[name], bool):
            words = {bool: "true or false", str: "text", float: "a number"}
            raise refused(f"{where}.{name}: write {words[type(defaults[name])]}.")
    return kind(**given)


def _check_vault(vault: VaultOptions) -> None:
    if vault.auth_method not in AUTH_METHODS:
        raise refused(f"vault.auth_method: write one of {', '.join(AUTH_METHODS)}.")
    if vault.enabled and not vault.address:
        raise refused("vault.address: say where Vault is, such as https://vault.example.com:8200.")


def _check_weights(weights: WeightOptions) -> None:
    if weights.storage_type not in ("", *STORAGE_TYPES):
        raise refused(f"model_weights.storage_type: write one of {', '.join(STORAGE_TYPES)}.")
    if weights.checksum_algorithm.lower().replace("-", "") != "sha256":
        raise refused("model_weights.checksum_algorithm: every transfer is checked by sha256, and by nothing else.")
    for name, why in _ALWAYS_ON.items():
        if not getattr(weights, name):
            raise refused(f"model_weights.{name} can't be turned off: {why}. Leave it out.")
    if not 0 < weights.cache_max_size_gb <= 1_000_000:
        raise refused("model_weights.cache_max_size_gb: write a number of GB above 0.")
