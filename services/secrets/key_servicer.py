"""KeyService: requests of the other services to the keyring and back. The owner is the service that calls."""

import grpc

from services.secrets.kek_rotation import KekRotation
from services.secrets.keyring import DataKey, Keyring
from services.secrets.password_keys import KekPassword
from services.secrets.unwrap_limit import UnwrapLimit
from services.shared.call import caller
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc

_PAGE_SIZE = 1000


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Serves wrapped keys."""

    def __init__(self, keyring: Keyring, rotation: KekRotation, limit: UnwrapLimit) -> None:
        self._keyring = keyring
        self._rotation = rotation
        self._limit = limit

    def CreateKek(
        self, request: keys_pb2.CreateKekRequest, context: grpc.ServicerContext
    ) -> keys_pb2.CreateKekResponse:
        version = self._keyring.create_kek(caller(context).id, request.kek_id)
        return keys_pb2.CreateKekResponse(kek_id=request.kek_id, version=version)

    def GenerateKeys(
        self, request: keys_pb2.GenerateKeysRequest, context: grpc.ServicerContext
    ) -> keys_pb2.GenerateKeysResponse:
        made = self._keyring.generate(caller(context).id, request.kek_id, request.contexts)
        return keys_pb2.GenerateKeysResponse(keys=map(_key, made))

    def WrapKeys(self, request: keys_pb2.WrapKeysRequest, context: grpc.ServicerContext) -> keys_pb2.WrapKeysResponse:
        values = [(value.context, value.key) for value in request.keys]
        return keys_pb2.WrapKeysResponse(key_ids=self._keyring.wrap(caller(context).id, request.kek_id, values))

    def RotateKek(
        self, request: keys_pb2.RotateKekRequest, context: grpc.ServicerContext
    ) -> keys_pb2.RotateKekResponse:
        password = _password(request.password) if request.HasField("password") else None
        step = self._rotation.rotate(caller(context).id, request.kek_id, password)
        return keys_pb2.RotateKekResponse(
            from_version=step.from_version, to_version=step.version, rewrapped=step.rewrapped, left=step.left
        )

    def RewrapKeys(
        self, request: keys_pb2.RewrapKeysRequest, context: grpc.ServicerContext
    ) -> keys_pb2.RewrapKeysResponse:
        contexts = {key.key_id: key.context for key in request.keys}
        step = self._rotation.rewrap(caller(context).id, request.kek_id, contexts)
        return keys_pb2.RewrapKeysResponse(
            version=step.version, rewrapped=step.rewrapped, left=step.left, unbound_key_ids=step.unbound
        )

    def DestroyKek(
        self, request: keys_pb2.DestroyKekRequest, context: grpc.ServicerContext
    ) -> keys_pb2.DestroyKekResponse:
        return keys_pb2.DestroyKekResponse(destroyed_keys=self._rotation.destroy(caller(context).id, request.kek_id))

    def UnwrapKeys(
        self, request: keys_pb2.UnwrapKeysRequest, context: grpc.ServicerContext
    ) -> keys_pb2.UnwrapKeysResponse:
        references = [(reference.key_id, reference.context) for reference in request.keys]
        self._limit.take(caller(context).id, len(references))
        found = self._keyring.unwrap(caller(context).id, references)
        return keys_pb2.UnwrapKeysResponse(keys=map(_key, found))

    def DestroyKeys(
        self, request: keys_pb2.DestroyKeysRequest, context: grpc.ServicerContext
    ) -> keys_pb2.DestroyKeysResponse:
        return keys_pb2.DestroyKeysResponse(destroyed=self._keyring.destroy(caller(context).id, request.key_ids))

    def ListKeys(self, request: keys_pb2.ListKeysRequest, context: grpc.ServicerContext) -> keys_pb2.ListKeysResponse:
        ids = self._keyring.list_ids(
            caller(context).id,
            request.kek_id,
            after=request.page_token,
            min_age_seconds=request.min_age_seconds,
            limit=_PAGE_SIZE + 1,
        )
        token = ids[_PAGE_SIZE - 1] if len(ids) > _PAGE_SIZE else ""
        return keys_pb2.ListKeysResponse(key_ids=ids[:_PAGE_SIZE], next_page_token=token)

    def ListKeks(self, request: keys_pb2.ListKeksRequest, context: grpc.ServicerContext) -> keys_pb2.ListKeksResponse:
        ids = self._keyring.list_keks(
            caller(context).id,
            after=request.page_token,
            min_age_seconds=request.min_age_seconds,
            limit=_PAGE_SIZE + 1,
        )
        token = ids[_PAGE_SIZE - 1] if len(ids) > _PAGE_SIZE else ""
        return keys_pb2.ListKeksResponse(kek_ids=ids[:_PAGE_SIZE], next_page_token=token)

    def Encrypt(self, request: keys_pb2.EncryptRequest, context: grpc.ServicerContext) -> keys_pb2.EncryptResponse:
        ciphertext = self._keyring.encrypt(caller(context).id, request.kek_id, request.plaintext, request.context)
        return keys_pb2.EncryptResponse(ciphertext=ciphertext)

    def Decrypt(self, request: keys_pb2.DecryptRequest, context: grpc.ServicerContext) -> keys_pb2.DecryptResponse:
        self._limit.take(caller(context).id, 1)
        plaintext = self._keyring.decrypt(caller(context).id, request.ciphertext, request.context)
        return keys_pb2.DecryptResponse(plaintext=plaintext)


def _password(password: keys_pb2.KekPassword) -> KekPassword:
    pbkdf2 = password.pbkdf2
    return KekPassword(password.password, pbkdf2.hash_algorithm, pbkdf2.iterations)


def _key(key: DataKey) -> keys_pb2.Key:
    return keys_pb2.Key(key_id=key.id, key=key.key, kek_id=key.kek_id)
