"""The envelope that the secrets service's KeyService provides."""

import grpc

from services.auth.envelope import Envelope
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc

# Auth's one key-encryption key; it never leaves the secrets service.
_KEK = "auth"


def remote_envelope(channel: grpc.Channel) -> Envelope:
    """An envelope over a channel to the secrets service."""
    stub = keys_pb2_grpc.KeyServiceStub(channel)

    def encrypt(plaintext: bytes, context: str) -> bytes:
        # Creating a KEK that exists is fine, and we encrypt once in the life of an installation.
        stub.CreateKek(keys_pb2.CreateKekRequest(kek_id=_KEK))
        return stub.Encrypt(keys_pb2.EncryptRequest(kek_id=_KEK, plaintext=plaintext, context=context)).ciphertext

    def decrypt(ciphertext: bytes, context: str) -> bytes:
        return stub.Decrypt(keys_pb2.DecryptRequest(ciphertext=ciphertext, context=context)).plaintext

    return Envelope(encrypt, decrypt)
