"""Opens the stores that are configured. The SDK of a cloud is imported when a store of it is."""

from functools import partial

from services.models.stores.configuration import (
    AzureConfiguration,
    GcsConfiguration,
    LocalConfiguration,
    S3Configuration,
    StoreConfiguration,
    StoresConfiguration,
)
from services.models.stores.late import LateStore
from services.models.stores.local import LocalStore
from services.models.stores.store import Store, StoreUnavailable
from services.shared.configuration import ConfigurationError

_EXTRAS = {"s3": "aws", "gcs": "gcp", "azure": "azure"}


def open_all(configuration: StoresConfiguration) -> dict[str, Store]:
    """The stores by name, the primary first. Raises ConfigurationError; StoreUnavailable if the only one fails.

    One of several that can't be opened does not answer until it can: the others are there to be read meanwhile.
    """
    opened: dict[str, Store] = {}
    for name in configuration.names:
        store = configuration.stores[name]
        try:
            opened[name] = open_store(store)
        except StoreUnavailable:
            if len(configuration.names) == 1:
                raise
            opened[name] = LateStore(partial(open_store, store))
        except ImportError:
            extra = _EXTRAS.get(store.kind, "server")
            message = f"The store {name} needs an SDK that is missing: pip install 'strongroom[{extra}]'"
            raise ConfigurationError(message) from None
        except ConfigurationError as error:
            raise ConfigurationError(f"The store {name}: {error}") from None
    return opened


def open_store(configuration: StoreConfiguration) -> Store:
    """Opens one. Raises ConfigurationError, ImportError, StoreUnavailable."""
    match configuration:
        case LocalConfiguration():
            return LocalStore(configuration.path)
        case S3Configuration():
            from services.models.stores import s3

            return s3.opened(configuration)
        case GcsConfiguration():
            from services.models.stores import gcs

            return gcs.opened(configuration)
        case AzureConfiguration():
            from services.models.stores import azure

            return azure.opened(configuration)
