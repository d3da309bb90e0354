"""Opens root keys by their names. The SDK of a system is imported when a key in it is asked for."""

from collections.abc import Mapping
from pathlib import Path

from services.secrets.root_keys import configuration, file
from services.secrets.root_keys.configuration import (
    AwsKmsConfiguration,
    FileConfiguration,
    RootKeyConfiguration,
    RootKeysConfiguration,
    TransitConfiguration,
)
from services.secrets.root_keys.root_key import RootKey, RootKeyError
from services.shared.configuration import ConfigurationError
from services.shared.errors import NotFound

_EXTRAS = {"transit": "vault", "aws-kms": "aws"}


class RootKeyUnknown(NotFound):
    """No root key of this name is configured."""

    reason = "ROOT_KEY_UNKNOWN"

    def __init__(self, name: str, known: Mapping[str, object]) -> None:
        message = f"No root key {name!r} is configured. STRONGROOM_KMS has: {', '.join(sorted(known))}."
        super().__init__(message, root_key=name)


class RootKeySource:
    """The root keys of the configuration, which is read anew each time.

    Args:
        root_key_file: the key called `file`.
        kms: the YAML file with the others; if None,
        usual: that one, once somebody has written it.
    """

    def __init__(self, root_key_file: Path, kms: Path | None, usual: Path | None = None) -> None:
        self._root_key_file = root_key_file
        self._kms = kms
        self._usual = usual

    @property
    def primary(self) -> str:
        """The name of the key that a new installation begins with. Raises RootKeyError."""
        return self._configuration().primary

    def names(self) -> list[str]:
        """Of all that are configured. Raises RootKeyError."""
        return sorted(self._configuration().root_keys)

    def open(self, name: str) -> RootKey:
        """Raises RootKeyUnknown, RootKeyError."""
        known = self._configuration().root_keys
        if name not in known:
            raise RootKeyUnknown(name, known)
        found = known[name]
        try:
            return _opened(found)
        except ImportError:
            extra = _EXTRAS.get(found.kind, "server")
            message = f"The root key {name} needs an SDK that is missing: pip install 'strongroom[{extra}]'"
            raise RootKeyError(message) from None
        except ConfigurationError as error:
            raise RootKeyError(f"The root key {name} can't be used: {error}.") from None

    def _configuration(self) -> RootKeysConfiguration:
        found = self._kms or (self._usual if self._usual is not None and self._usual.exists() else None)
        try:
            return configuration.load(found, self._root_key_file)
        except ConfigurationError as error:
            raise RootKeyError(f"The root keys can't be read: {error}.") from None


def _opened(found: RootKeyConfiguration) -> RootKey:
    match found:
        case FileConfiguration():
            return file.load(found.path)
        case TransitConfiguration():
            from services.secrets.root_keys import transit

            return transit.opened(found)
        case AwsKmsConfiguration():
            from services.secrets.root_keys import aws_kms

            return aws_kms.opened(found)
