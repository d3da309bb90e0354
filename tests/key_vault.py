"""An Azure Key Vault, with who signs in to it, that the real clients take for one: over HTTPS, in memory."""

import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
_LIMIT = 25_600
_PAGE = 3
_Json = dict[str, Any]


@dataclass
class KeyVault:
    """`url` is the vault's and the authority's. `keeps` refuses to purge; `down` answers 503."""

    url: str = ""
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    kept: dict[str, list[_Json]] = field(default_factory=dict, repr=False)
    deleted: dict[str, list[_Json]] = field(default_factory=dict, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    keeps: bool = False
    down: bool = False

    def answer(self, method: str, path: str, query: str, body: _Json) -> tuple[int, _Json]:
        match method, path.strip("/").split("/"):
            case "PUT", ["secrets", name]:
                return self._set(name.lower(), body)
            case "GET", ["secrets"]:
                return self._page([_properties(versions[-1], False) for versions in self.kept.values()], path, query)
            case "GET", ["secrets", name, "versions"] if name.lower() in self.kept:
                return self._page([_properties(version, True) for version in self.kept[name.lower()]], path, query)
            case "GET", ["secrets", name, *version] if name.lower() in self.kept:
                for one in reversed(self.kept[name.lower()]):
                    if not version or one["id"].endswith(f"/{version[0]}"):
                        return 200, one
            case "DELETE", ["secrets", name] if name.lower() in self.kept:
                self.deleted[name.lower()] = self.kept.pop(name.lower())
                return 200, self._of_deleted(name.lower())
            case "GET", ["deletedsecrets", name] if name.lower() in self.deleted:
                return 200, self._of_deleted(name.lower())
            case "DELETE", ["deletedsecrets", name] if name.lower() in self.deleted:
                if self.keeps:
                    return 403, _error("Forbidden")
                del self.deleted[name.lower()]
                return 204, {}
            case "POST", ["deletedsecrets", name, "recover"] if name.lower() in self.deleted:
                self.kept[name.lower()] = self.deleted.pop(name.lower())
                return 200, _properties(self.kept[name.lower()][-1], True)
        return 404, _error("SecretNotFound")

    def _set(self, name: str, body: _Json) -> tuple[int, _Json]:
        if name in self.deleted:
            return 409, _error("Conflict")
        if len(body["value"]) > _LIMIT or len(name) > 127 or not name.replace("-", "").isalnum():
            return 400, _error("BadParameter")
        now = int(time.time())
        made = {
            "id": f"{self.url}/secrets/{name}/{secrets.token_hex(16)}",
            "value": body["value"],
            "contentType": body.get("contentType"),
            "attributes": {"enabled": True, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable"},
        }
        self.kept.setdefault(name, []).append(made)
        return 200, made

    def _page(self, found: list[_Json], path: str, query: str) -> tuple[int, _Json]:
        begin = int(parse_qs(query).get("skip", ["0"])[0])
        rest = f"{self.url}{path}?api-version=7.6&skip={begin + _PAGE}" if begin + _PAGE < len(found) else None
        return 200, {"value": found[begin : begin + _PAGE], "nextLink": rest}

    def _of_deleted(self, name: str) -> _Json:
        return _properties(self.deleted[name][-1], True) | {"recoveryId": f"{self.url}/deletedsecrets/{name}"}


def _properties(version: _Json, whole: bool) -> _Json:
    about = {key: value for key, value in version.items() if key != "value"}
    return about if whole else about | {"id": version["id"].rpartition("/")[0]}


def _error(code: str) -> _Json:
    return {"error": {"code": code, "message": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vault: KeyVault

    def _respond(self) -> None:
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, body, headers = self._answer(url.path, url.query, raw)
        data = json.dumps(body).encode() if status != 204 else b""
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def _answer(self, path: str, query: str, raw: bytes) -> tuple[int, _Json, dict[str, str]]:
        vault = self.vault
        authority = f"{vault.url}/{TENANT}"
        if vault.down:
            return 503, _error("ServiceUnavailable"), {}
        if path.endswith("/openid-configuration"):
            endpoints = {"authorization_endpoint": f"{authority}/authorize", "token_endpoint": f"{authority}/token"}
            return 200, {"issuer": f"{authority}/v2.0", **endpoints}, {}
        if path == f"/{TENANT}/token":
            form = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
            if (form.get("client_id"), form.get("client_secret")) != (CLIENT, vault.client_secret):
                return 401, {"error": "invalid_client", "error_description": "AADSTS7000215"}, {}
            return 200, {"access_token": vault.token, "token_type": "Bearer", "expires_in": 3600}, {}
        if self.headers.get("authorization") != f"Bearer {vault.token}":
            challenge = f'Bearer authorization="{authority}", resource="https://vault.azure.net"'
            return 401, _error("Unauthorized"), {"www-authenticate": challenge}
        with vault.lock:
            return (*vault.answer(self.command, path, query, json.loads(raw or b"{}")), {})

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class KeyVaultServer:
    """Where it is, and the file of the certificate authority that vouches for it."""

    url: str
    ca: Path
    vault: KeyVault


@contextmanager
def running(folder: Path) -> Iterator[KeyVaultServer]:
    """The server while the block runs; its certificate authority in `folder`."""
    authority, vault = trustme.CA(), KeyVault()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"vault": vault}))
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    vault.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield KeyVaultServer(vault.url, ca, vault)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
