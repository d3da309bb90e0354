"""What a program expects of the service, by its options and cloud providers, and what of that is not there.

Where weights and secrets are kept is the service's configuration, the same for all of its callers: a program can say
what it expects, and not change it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from strongroom.cloud_providers import SECRET_KINDS, STORE_KINDS, CloudProvider
from strongroom.secret_options import SecretOptions

_PRIMARY = "embedded"
_PROVIDERS = "the file that STRONGROOM_PROVIDERS names at the service (docs/providers.md)"
_STORES = "the file that STRONGROOM_STORES names at the service (docs/stores.md)"
# Options that are the service's: which ones, and where it has them.
_ELSEWHERE = (
    (("vault.address", "vault.auth_method"), f"where Vault is, and how to sign in to it, says {_PROVIDERS}"),
    (
        ("model_weights.s3_bucket", "model_weights.gcs_bucket", "model_weights.azure_container"),
        f"where weights are kept says {_STORES}",
    ),
    (("model_weights.sync_enabled",), f"replicas always follow; which there are says {_STORES}"),
    (
        ("model_weights.cache_enabled", "model_weights.cache_directory", "model_weights.cache_max_size_gb"),
        f"the cache is the service's: `cache` in {_STORES}",
    ),
    (
        ("rotation.schedule",),
        "each secret has a schedule of its own: strongroom secrets rotation set NAME --schedule …",
    ),
)


@dataclass(frozen=True)
class Service:
    """What the service has, name → kind: providers of secrets, and stores of weights. The primary comes first."""

    providers: Mapping[str, str] = field(default_factory=dict)
    stores: Mapping[str, str] = field(default_factory=dict)

    def keeps(self, name: str, kind: str) -> tuple[bool, bool]:
        """Whether it keeps secrets, and weights, with what a program calls so."""
        secrets = kind == "local" or name in self.providers or _any_of(SECRET_KINDS[kind], self.providers)
        return secrets, name in self.stores or _any_of(STORE_KINDS[kind], self.stores)

    def provider_called(self, name: str, clouds: Mapping[str, CloudProvider]) -> str:
        """The service's name of a provider of secrets that a program calls by its own name, or by its kind."""
        kind = clouds[name].kind if name in clouds else name
        if kind == "local":
            return _PRIMARY
        same = [found for found, its in self.providers.items() if its in SECRET_KINDS.get(kind, ())]
        return same[0] if name not in self.providers and len(same) == 1 else name

    def store_called(self, name: str, clouds: Mapping[str, CloudProvider]) -> str:
        """As `provider_called`, of weights; the service knows kinds itself."""
        return clouds[name].kind if name in clouds and name not in self.stores else name


def elsewhere(options: SecretOptions) -> Iterator[str]:
    """One line for options that are obeyed elsewhere, if they were given."""
    for names, where in _ELSEWHERE:
        if given := [name for name in names if name in options.given]:
            yield f"{', '.join(given)}: {where}."


def unmet(options: SecretOptions, clouds: Mapping[str, CloudProvider], service: Service) -> Iterator[str]:
    """What the service lacks, and how to configure it."""
    expected = {name: cloud.kind for name, cloud in clouds.items()}
    if options.vault.enabled and "vault" not in expected.values():
        expected["vault"] = "vault"
    for name, kind in expected.items():
        secrets, weights = service.keeps(name, kind)
        if not secrets and not weights:
            places = [_PROVIDERS, _STORES] if STORE_KINDS[kind] else [_PROVIDERS]
            yield f"The service keeps nothing with {name} ({kind}). Add it to {', or '.join(places)}."
    wanted = options.model_weights.storage_type
    primary = next(iter(service.stores.values()), "")
    if wanted and primary not in STORE_KINDS[wanted]:
        message = f"model_weights.storage_type is {wanted}, the service's primary store is {primary}."
        yield f"{message} Change either; the latter is in {_STORES}."


def half_met(clouds: Mapping[str, CloudProvider], service: Service) -> Iterator[str]:
    """Clouds with which the service keeps weights and no secrets, or secrets and no weights."""
    for name, cloud in clouds.items():
        secrets, weights = service.keeps(name, cloud.kind)
        if weights and not secrets:
            yield f"The service keeps weights with {name} and no secrets; those would be in {_PROVIDERS}."
        if secrets and not weights and STORE_KINDS[cloud.kind]:
            yield f"The service keeps secrets with {name} and no weights; those would be in {_STORES}."


def _any_of(kinds: tuple[str, ...], found: Mapping[str, str]) -> bool:
    return any(kind in kinds for kind in found.values())
