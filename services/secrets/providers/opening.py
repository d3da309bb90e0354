"""Opens the providers that are configured. The SDK of a cloud is imported when a provider of it is."""

from collections.abc import Mapping

from services.secrets.providers.configuration import (
    EMBEDDED,
    AwsConfiguration,
    AzureConfiguration,
    GcpConfiguration,
    OpenBaoConfiguration,
    ProviderConfiguration,
    ProvidersConfiguration,
)
from services.secrets.providers.provider import SecretProvider
from services.shared.configuration import ConfigurationError

_EXTRAS = {"openbao": "vault"}


def open_all(configuration: ProvidersConfiguration, embedded: SecretProvider) -> Mapping[str, SecretProvider]:
    """The providers by name. Nothing is asked of their servers yet. Raises ConfigurationError."""
    opened: dict[str, SecretProvider] = {EMBEDDED: embedded}
    for name, provider in configuration.providers.items():
        try:
            opened[name] = open_provider(provider)
        except ImportError:
            extra = _EXTRAS.get(provider.kind, provider.kind)
            message = f"The provider {name} needs an SDK that is missing: pip install 'strongroom[{extra}]'"
            raise ConfigurationError(message) from None
        except ConfigurationError as error:
            raise ConfigurationError(f"The provider {name}: {error}") from None
    return opened


def open_provider(configuration: ProviderConfiguration) -> SecretProvider:
    """Opens one. Raises ConfigurationError, ImportError."""
    match configuration:
        case AwsConfiguration():
            from services.secrets.providers import aws

            return aws.opened(configuration)
        case GcpConfiguration():
            from services.secrets.providers import gcp

            return gcp.opened(configuration)
        case AzureConfiguration():
            from services.secrets.providers import azure

            return azure.opened(configuration)
        case OpenBaoConfiguration():
            from services.secrets.providers import openbao

            return openbao.opened(configuration)
