"""A root key in the transit engine of OpenBao or Vault, which never leaves it.

It signs in for every use and keeps no token: the key is used at a start and at a move.
"""

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import hvac
import requests
from hvac import exceptions

from services.secrets.root_keys.configuration import TransitConfiguration
from services.secrets.root_keys.root_key import RootKeyError, RootKeyUnavailable, WrongRootKey
from services.shared.configuration import ConfigurationError, SecretReference

# To connect, and between two bytes of an answer.
_SECONDS = 10.0
# What the server answers while it is sealed, stands by, or starts.
_NOT_NOW = (exceptions.VaultDown, exceptions.InternalServerError, exceptions.BadGateway, exceptions.RateLimitExceeded)


@dataclass(frozen=True)
class TransitRootKey:
    """A key of the engine, by name."""

    configuration: TransitConfiguration
    kind: str = "transit"

    @property
    def place(self) -> str:
        found = self.configuration
        return f"{found.endpoint}/{found.mount}/keys/{found.key}"

    def wrap(self, key: bytes, context: str) -> bytes:
        with self._signed_in() as client:
            answer = client.secrets.transit.encrypt_data(
                self.configuration.key,
                plaintext=_base64(key),
                associated_data=_base64(context.encode()),
                mount_point=self.configuration.mount,
            )
        return str(answer["data"]["ciphertext"]).encode()

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        with self._signed_in() as client:
            try:
                answer = client.secrets.transit.decrypt_data(
                    self.configuration.key,
                    ciphertext=wrapped.decode("ascii", "replace"),
                    associated_data=_base64(context.encode()),
                    mount_point=self.configuration.mount,
                )
            except exceptions.InvalidRequest:
                message = f"The database was encrypted under another root key than {self.place}."
                raise WrongRootKey(message) from None
        return base64.b64decode(answer["data"]["plaintext"])

    @contextmanager
    def _signed_in(self) -> Iterator[hvac.Client]:
        """A client with a fresh token. What goes wrong inside is told without what was sent."""
        found = self.configuration
        verify = str(found.ca) if found.ca else True
        try:
            # A session of our own: the environment's proxies and .netrc have no business with keys.
            session = requests.Session()
            session.trust_env = False
            session.verify = verify
            client = hvac.Client(
                found.endpoint, token="", verify=verify, timeout=_SECONDS, namespace=found.namespace, session=session
            )
            _sign_in(client, found)
            yield client
        except ConfigurationError as error:
            raise RootKeyError(f"The root key {self.place} can't be used: {error}.") from None
        except (requests.ConnectionError, requests.Timeout, *_NOT_NOW) as error:
            message = f"The root key {self.place} does not answer ({type(error).__name__}). Try again."
            raise RootKeyUnavailable(message) from None
        except (exceptions.VaultError, requests.RequestException, KeyError, TypeError, binascii.Error) as error:
            message = f"The root key {self.place} refuses to be used ({type(error).__name__}): look at policy and name."
            raise RootKeyError(message) from None


def opened(configuration: TransitConfiguration) -> TransitRootKey:
    """The key; the server is asked when it is used."""
    return TransitRootKey(configuration)


def _sign_in(client: hvac.Client, found: TransitConfiguration) -> None:
    if found.token is not None:
        client.token = found.token.read()
    elif found.approle is not None:
        way = found.approle
        client.auth.approle.login(way.role_id, way.secret_id.read(), mount_point=way.mount)
    else:
        assert found.kubernetes is not None
        pod = found.kubernetes
        token = SecretReference(file=pod.token_file).read()
        client.auth.kubernetes.login(pod.role, token, mount_point=pod.mount)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
