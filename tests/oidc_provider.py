"""An OpenID provider on a loopback port: a real server of keys and discovery, which signs whatever a test asks for; and
auth services that trust it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.auth_installation import Auth, Installation

AUDIENCE = "strongroom"
CALLER = "/strongroom.auth.v1.TokenService/GetCaller"
RULES = [
    {"claim": "realm_access.roles", "value": "modelers", "role": "researcher"},
    {"claim": "groups", "pattern": "ml-*", "permission_set": "predict"},
    {"claim": "email", "pattern": "*@example.com", "role": "viewer"},
    {"claim": "sub", "pattern": "repo:acme/*", "permission_set": "training_pipeline"},
]


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def published(key: Any, key_id: str, **fields: Any) -> dict[str, Any]:
    """The public part as it stands in a key set."""
    algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", **fields}


@dataclass
class Provider:
    """What it answers by path, and which paths it was asked for."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False
    # Seconds between two bytes of an answer.
    pause: float = 0

    def publish(self) -> None:
        """Makes its key set and its discovery document."""
        self.answers = {
            "/jwks": {"keys": [published(key, key_id) for key_id, key in self.keys.items()]},
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"},
        }

    def token(
        self,
        key_id: str = "rsa",
        algorithm: str = "RS256",
        key: Any = None,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token with the claims of a good one, but for those given; None leaves one out."""
        now = int(time.time())
        body = {"iss": self.url, "aud": AUDIENCE, "sub": "repo:acme/ml", "iat": now, "exp": now + 300, **claims}
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, key or self.keys[key_id], algorithm, {"kid": key_id, **(headers or {})})


@contextmanager
def provider() -> Iterator[Provider]:
    """Runs it while the block runs."""
    running = Provider(keys={"rsa": rsa_key(), "ec": ec_key()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.asked.append(self.path)
            answer = None if running.down else running.answers.get(self.path)
            if isinstance(answer, str):
                self.send_response(302)
                self.send_header("location", answer)
                body = b""
            else:
                self.send_response(503 if answer is None else 200)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            for piece in [body[at : at + 1] for at in range(len(body))] if running.pause else [body]:
                time.sleep(running.pause)
                try:
                    self.wfile.write(piece)
                except OSError:
                    return

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    running.url = f"http://127.0.0.1:{server.server_port}"
    running.publish()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def trusting(installed: Installation, issuer: Provider, **fields: Any) -> AbstractContextManager[Auth]:
    """An auth service that trusts this issuer, with these fields in its file."""
    file = installed.folder / "issuers.yaml"
    file.write_text(yaml.safe_dump([{"issuer": issuer.url, "audience": AUDIENCE, "rules": RULES, **fields}]))
    return installed.auth(oidc_issuers=file)


def status(auth: Auth, token: str) -> int:
    """HTTP status that the edge gives this token; 200 if it lets it in."""
    answer = auth.check(CALLER, {"authorization": f"Bearer {token}"})
    return 200 if answer.HasField("ok_response") else answer.denied_response.status.code
