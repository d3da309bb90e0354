"""Starts a service inside the test process, on a free loopback port, with identities made for the test."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.channels import IDENTITY_HEADER
from services.shared.identity import Grant, Principal
from services.shared.service import Server, Service
from services.shared.settings import ServiceSettings
from services.shared.tokens import ALGORITHM, IDENTITY_SECONDS, IDENTITY_TYPE, ISSUER, SERVICES, principal_claims

S = TypeVar("S", bound=ServiceSettings)

ADMINISTRATOR = Principal("key:admin", "administrator", "admin", "admin", (Grant("allow", ("*",), ("**",)),))


def make_identities(folder: Path) -> Path:
    """Writes a key pair for every service, as `strongroom up` does."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in SERVICES:
        key = ec.generate_private_key(ec.SECP256R1())
        private = folder / f"{name}.pem"
        private.touch(mode=0o600)
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub.pem").write_bytes(public)
    return folder


@contextmanager
def serving(build: Callable[[S], Service], settings: S) -> Iterator[str]:
    """Runs the service while the block runs; yields its host:port once it is healthy."""
    server = Server(build(settings), settings)
    server.start()
    try:
        address = f"127.0.0.1:{server.port}"
        wait_healthy(address)
        yield address
    finally:
        server.stop(grace=1)


def wait_healthy(address: str, seconds: float = 60) -> None:
    """Returns once the service reports SERVING."""
    deadline = time.monotonic() + seconds
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            answer = stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=seconds)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.02)
    raise AssertionError(f"the service at {address} did not get healthy within {seconds} s")


@dataclass(frozen=True)
class TokenMaker:
    """Signs identity tokens with a key of the test's: pass `access_keys` to a TokenVerifier that shall trust it."""

    key: ec.EllipticCurvePrivateKey

    def access_keys(self, key_id: str) -> ec.EllipticCurvePublicKey | None:
        return self.key.public_key() if key_id == "test" else None

    def token(self, audience: str, principal: Principal, **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": ISSUER, "aud": audience, "iat": now, "exp": now + IDENTITY_SECONDS} | principal_claims(principal)
        return jwt.encode(body | claims, self.key, ALGORITHM, {"typ": IDENTITY_TYPE, "kid": "test"})

    def metadata(self, audience: str, principal: Principal = ADMINISTRATOR) -> list[tuple[str, str]]:
        return [(IDENTITY_HEADER, self.token(audience, principal))]


def make_token_maker() -> TokenMaker:
    return TokenMaker(ec.generate_private_key(ec.SECP256R1()))
