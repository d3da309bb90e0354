"""The environment of each service: everything it needs, and no secret that is another's."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from strongroom.local.contract import SERVICES
from strongroom.local.credentials import BOOTSTRAP_KEY, BOOTSTRAP_KEY_FILE, ROOT_KEY_FILE, Credentials
from strongroom.local.layout import Layout
from strongroom.local.pki import DIRECTORY
from strongroom.local.state import State

# Where auth answers the gateway; no longer than `admin.sock`.
CHECK_SOCKET = "check.sock"
# Where models takes bulk streams past the gateway.
BULK_SOCKET = "bulk.sock"

# Who may see which variable, where that is not everybody. "" is nobody.
_OWNERS = {
    BOOTSTRAP_KEY: "",  # passed on as a file
    "STRONGROOM_API_KEY": "",  # the client's, as what follows
    "STRONGROOM_PASSWORD": "",
    "STRONGROOM_TOKEN": "",
    ROOT_KEY_FILE: "secrets",
    "STRONGROOM_KMS": "secrets",
    "STRONGROOM_PROVIDERS": "secrets",
    "STRONGROOM_STORES": "models",
    "STRONGROOM_TLS_CERT": "",  # the gateway's
    "STRONGROOM_TLS_KEY": "",
    "API_KEYS": "auth",
    "API_KEYS_FILE": "auth",
    "AUTH_TOKEN": "auth",
    "CHAPKIT_API_KEYS": "auth",
    "JWT_SECRET": "auth",
}
# Credentials of stores, of providers of secrets, and of systems that hold root keys.
_STORE = re.compile(r"STRONGROOM_STORE_\w+")
_SECRETS = re.compile(r"STRONGROOM_(PROVIDER|KMS)_\w+")
# What else of ours is named after a secret is about credentials, and those are auth's.
_SECRET = re.compile(r"STRONGROOM_\w*(KEY|PASSWORD|SECRET|TOKEN)\w*")

_PACKAGES = Path(__file__).resolve().parents[2]


def service_environment(
    service: str,
    outer: Mapping[str, str],
    layout: Layout,
    credentials: Credentials,
    state: State,
    pki: Path | None = None,
) -> dict[str, str]:
    """The variables of one service; what the user set and does not concern where parts are stays."""
    values = {name: value for name, value in outer.items() if _owner(name) in (service, None)}
    values.setdefault("STRONGROOM_DATABASE_URL", f"sqlite:///{layout.databases / 'strongroom.db'}")
    values |= {f"STRONGROOM_{name.upper()}_ADDR": f"127.0.0.1:{state.ports[name]}" for name in SERVICES}
    values |= {
        f"STRONGROOM_{service.upper()}_LISTEN": f"127.0.0.1:{state.ports[service]}",
        "STRONGROOM_DATA_DIR": str(layout.root),
        "STRONGROOM_IDENTITY_DIR": str(layout.identities),
        "STRONGROOM_METRICS_LISTEN": f"127.0.0.1:{state.metrics[service]}",
        "PYTHONUNBUFFERED": "1",
    }
    if service == "auth":
        values["STRONGROOM_CHECK_SOCKET"] = str(Path(state.sockets) / CHECK_SOCKET)
    if service == "models":
        values["STRONGROOM_BULK_SOCKET"] = str(Path(state.sockets) / BULK_SOCKET)
    if service == "auth" and credentials.admin_key_file:
        values[BOOTSTRAP_KEY_FILE] = str(credentials.admin_key_file)
    if service == "secrets":
        values[ROOT_KEY_FILE] = str(credentials.root_key_file)
    if pki:
        values[DIRECTORY] = str(pki)
    if _PACKAGES.name not in ("site-packages", "dist-packages"):
        # `python -P` leaves out the current folder, where a user's `types.py` or `secrets.py` may lie.
        values["PYTHONPATH"] = ":".join(filter(None, (str(_PACKAGES), outer.get("PYTHONPATH"))))
    return values


def _owner(name: str) -> str | None:
    if _STORE.fullmatch(name):
        return "models"
    if _SECRETS.fullmatch(name):
        return "secrets"
    return _OWNERS.get(name, "auth" if _SECRET.fullmatch(name) else None)


def service_command(service: str) -> list[str]:
    """The command line that runs a service."""
    return [sys.executable, "-P", "-m", f"services.{service}"]


def gateway_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """Envoy needs nothing of ours."""
    return {name: outer[name] for name in ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH") if name in outer}
