"""How we sign in to OpenBao, and what becomes of a token."""

import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from services.secrets.providers.provider import ProviderRefused, ProviderUnavailable
from tests.openbao import OpenBaoServer
from tests.provider_kinds import Fields, opened, private
from tests.secrets_installation import PLANTED
from tests.stack import free_port

pytestmark = pytest.mark.row("S4.2")


def _fields(server: OpenBaoServer, mount: str, sign_in: Fields) -> Fields:
    return {"kind": "openbao", "endpoint": server.url, "mount": mount, "sign_in": sign_in}


def _approle(folder: Path, role_id: str, secret_id: str) -> Fields:
    return {"method": "approle", "role_id": private(folder, role_id), "secret_id": private(folder, secret_id)}


def test_approle_signs_in_and_again_when_its_token_ends(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    mount = openbao_server.mount()
    provider = opened(_fields(openbao_server, mount, _approle(tmp_path, *openbao_server.approle(mount))))
    provider.put("prod/db", {"n": 1})
    accessors = openbao_server.root.list("auth/token/accessors")["data"]["keys"]
    for accessor in accessors:
        about = openbao_server.root.auth.token.lookup_accessor(accessor)["data"]
        if about["meta"] and about["meta"].get("role_name") == mount:
            openbao_server.root.auth.token.revoke_accessor(accessor)
    assert provider.get("prod/db").data == {"n": 1}


def test_sign_in_that_is_refused_is_told_without_a_credential(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    mount = openbao_server.mount()
    role_id, _ = openbao_server.approle(mount)
    for sign_in in (
        _approle(tmp_path, role_id, PLANTED),
        {"method": "token", "token": private(tmp_path, PLANTED)},
        {"method": "kubernetes", "role": "nobody", "token_file": str(tmp_path / "missing")},
    ):
        with pytest.raises(ProviderRefused) as caught:
            opened(_fields(openbao_server, mount, sign_in)).check()
        assert PLANTED not in str(caught.value)


def test_token_opens_its_mount_alone(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    mine, other = openbao_server.mount(), openbao_server.mount()
    sign_in = {"method": "token", "token": private(tmp_path, openbao_server.token(mine))}
    opened(_fields(openbao_server, mine, sign_in)).put("a", {"n": 1})
    with pytest.raises(ProviderRefused):
        opened(_fields(openbao_server, other, sign_in)).put("a", {"n": 1})


def test_listing_does_not_leave_its_folder(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    mount = openbao_server.mount()
    sign_in = {"method": "token", "token": private(tmp_path, openbao_server.token(mount))}
    fields = _fields(openbao_server, mount, sign_in)
    provider = opened(fields | {"prefix": "strongroom"})
    provider.put("team/db", {"n": 1})
    opened(fields).put("elsewhere/db", {"n": 1})
    assert list(provider.list("team/")) == list(provider.list("te")) == ["team/db"]
    # What the server makes of dots in a path: the folder above, where others keep theirs.
    for prefix in ("../", "team/../../", "team/../../elsewhere/", "./", "team//", "/"):
        assert list(provider.list(prefix)) == [], prefix


def test_token_of_whoever_starts_us_is_not_used(
    openbao_server: OpenBaoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", openbao_server.root_token)
    mount = openbao_server.mount()
    sign_in = {"method": "approle", "role_id": private(tmp_path, "no"), "secret_id": private(tmp_path, "no")}
    with pytest.raises(ProviderRefused):
        opened(_fields(openbao_server, mount, sign_in)).check()


def test_mount_that_demands_check_and_set_gets_it(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    mount = openbao_server.mount()
    openbao_server.root.secrets.kv.v2.configure(cas_required=True, mount_point=mount)
    provider = opened(
        _fields(openbao_server, mount, {"method": "token", "token": private(tmp_path, openbao_server.token(mount))})
    )
    assert [provider.put("a", {"n": n}).revision for n in range(2)] == ["1", "2"]


def test_token_follows_no_redirect(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    seen: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(307)
            self.send_header("location", f"{openbao_server.url}{self.path}")
            self.end_headers()

        do_LIST = do_GET  # noqa: N815 - as the library wants it

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with _serving(Elsewhere) as port:
        sign_in = {"method": "token", "token": private(tmp_path, openbao_server.root_token)}
        fields = _fields(openbao_server, openbao_server.mount(), sign_in) | {"endpoint": f"http://127.0.0.1:{port}"}
        with pytest.raises(ProviderRefused, match="elsewhere"):
            opened(fields).check()
    assert len(seen) == 1


def test_server_that_is_not_there_is_unavailable(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    sign_in = {"method": "token", "token": private(tmp_path, PLANTED)}
    fields = _fields(openbao_server, "kv", sign_in) | {"endpoint": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(ProviderUnavailable) as caught:
        opened(fields).put("a", {"password": PLANTED})
    assert PLANTED not in str(caught.value)


def test_pod_signs_in_with_its_service_account(openbao_server: OpenBaoServer, tmp_path: Path) -> None:
    mount = openbao_server.mount()
    authority = trustme.CA()
    token = _account_token("strongroom")
    file = tmp_path / "token"
    file.write_text(token)
    with _kubernetes(authority, token) as host:
        root = openbao_server.root
        root.sys.enable_auth_method("kubernetes", path=mount)
        ca = authority.cert_pem.bytes().decode()
        given = {"kubernetes_host": host, "kubernetes_ca_cert": ca, "disable_local_ca_jwt": True}
        root.write_data(f"auth/{mount}/config", data=given)
        role = {
            "bound_service_account_names": ["strongroom"],
            "bound_service_account_namespaces": ["models"],
            "token_policies": [openbao_server.policy(mount)],
        }
        root.write_data(f"auth/{mount}/role/secrets", data=role)
        sign_in = {"method": "kubernetes", "role": "secrets", "token_file": str(file), "mount": mount}
        provider = opened(_fields(openbao_server, mount, sign_in))
        provider.put("prod/db", {"n": 1})
        assert provider.get("prod/db").data == {"n": 1}
        # Kubernetes replaces the file; what is not of the account does not get in.
        file.write_text(_account_token("somebody"))
        with pytest.raises(ProviderRefused):
            opened(_fields(openbao_server, mount, sign_in)).check()


def _account_token(name: str) -> str:
    now = int(time.time())
    account = {"namespace": "models", "serviceaccount": {"name": name, "uid": "u-1"}}
    claims = {"iss": "kubernetes", "sub": f"system:serviceaccount:models:{name}", "kubernetes.io": account}
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims | {"iat": now, "exp": now + 600}, key, "ES256")


@contextmanager
def _kubernetes(authority: trustme.CA, known: str) -> Iterator[str]:
    """The API that tells whose a token is: of the one token it knows."""

    class Review(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            user = {"username": "system:serviceaccount:models:strongroom", "uid": "u-1", "groups": []}
            is_known = asked["spec"]["token"] == known
            status = {"authenticated": True, "user": user} if is_known else {"error": "unknown token"}
            answer = json.dumps({**asked, "status": status}).encode()
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with _serving(Review, authority) as port:
        yield f"https://127.0.0.1:{port}"


@contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler], authority: trustme.CA | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if authority:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
