"""A socket on which a service listens beside its port, for this user's processes alone, past the gateway.

What the gateway does for a call is missing there: it limits how many come, and says from which address. So only the
methods that are named pass, nobody's word for an address counts, and who calls is said by a pass. The service gives one
out for an identity token that came through the gateway; it opens nothing but this socket of this process.
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from services.shared.call import ADDRESS_HEADER, Call
from services.shared.channels import IDENTITY_HEADER
from services.shared.errors import PermissionDenied
from services.shared.expiring_cache import ExpiringCache

# As long as the identity tokens that the gateway makes are good (they are checked at every call as well).
_PASS_SECONDS = 60.0
_MOST_PASSES = 10_000


class GatewayOnly(PermissionDenied):
    """The method is served through the gateway alone."""

    reason = "GATEWAY_ONLY"


class PrivateSocket:
    """The socket at `path`, for `methods` such as `/package.Service/Method`."""

    def __init__(self, path: str, methods: frozenset[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._methods = methods
        self._passes: ExpiringCache[str, str] = ExpiringCache(_MOST_PASSES, _PASS_SECONDS, clock)

    def listen(self, server: grpc.Server) -> None:
        """Binds the socket in a folder that is this user's alone: until it has its own mode, the folder's counts."""
        folder = Path(self.path).parent
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"Others may enter the folder of {self.path}; run: chmod 700 {folder}")
        server.add_insecure_port(f"unix:{self.path}")
        Path(self.path).chmod(0o600)

    def pass_for(self, identity: str) -> str:
        """What stands for this identity token on the socket; empty for an empty one."""
        if not identity:
            return ""
        made = secrets.token_urlsafe(32)
        self._passes.put(made, identity)
        return made

    def layer(self, call: Call) -> None:
        """Holds calls that came in by the socket to what is said above."""
        if call.context.peer().startswith("unix:"):
            call.metadata.pop(ADDRESS_HEADER, None)
            if call.method.path not in self._methods:
                raise GatewayOnly("This method is served through the gateway alone.")
            call.metadata[IDENTITY_HEADER] = self._passes.get(call.metadata.get(IDENTITY_HEADER, "")) or ""
