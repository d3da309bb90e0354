"""The composition root of the secrets service."""

from pathlib import Path

import grpc

from services.secrets import root_key
from services.secrets.key_servicer import KeyServicer
from services.secrets.keyring import Keyring
from services.secrets.secret_servicer import SecretServicer
from services.secrets.settings import SecretsSettings
from services.secrets.vault import Vault
from services.shared.database import Database
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity
from services.shared.trust import verifier_for
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc, secrets_pb2, secrets_pb2_grpc

_NAME = "secrets"
_MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: SecretsSettings) -> Service:
    """Wires the service. Raises RootKeyError, which says what to do, before anything is served."""
    key = root_key.load(settings.root_key_file)
    identity = ServiceIdentity.load(_NAME, settings.identity_dir)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    keyring = Keyring(database, key)
    keyring.check_root_key()
    vault = Vault(database, keyring)
    vault.prepare()
    verifier, trust = verifier_for(_NAME, settings, identity)

    def register(server: grpc.Server) -> None:
        secrets_pb2_grpc.add_SecretServiceServicer_to_server(SecretServicer(vault), server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(keyring), server)

    def close() -> None:
        trust.close()
        database.close()

    return Service(
        name=_NAME,
        services=[
            secrets_pb2.DESCRIPTOR.services_by_name["SecretService"].full_name,
            keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name,
        ],
        register=register,
        verifier=verifier,
        start=trust.start,
        ready=database.check,
        close=close,
        max_request_bytes=1 << 20,
    )
