"""Loopback ports for the parts."""

import errno
import ipaddress
import random
import socket

from strongroom.local.errors import StartError

# Below the ports that Linux hands out to outgoing connections (32768 and up), one of which could take ours between the
# moment it is chosen and the moment the service binds it.
_RANGE = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Distinct ports of 127.0.0.1 that nobody listens on."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_RANGE, len(_RANGE)):
        if bind_error("127.0.0.1", port) is None:
            found.append(port)
        if len(found) == count:
            return found
    raise StartError("There are no free ports on 127.0.0.1.")


def check_free(host: str, port: int) -> None:
    """Raises StartError unless the gateway can listen there."""
    error = bind_error(host, port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        other = port + 10 if port < 65_000 else port - 10
        raise StartError(f"Port {port} of {host} is in use; choose another: strongroom up --port {other}")
    raise StartError(f"Cannot listen on {host}, port {port}: {error.strerror}.")


def is_loopback(host: str) -> bool:
    """Whether programs of this machine alone reach a server that listens there."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        # A zone may stand behind an address, `fe80::1%eth0`.
        return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
    except (OSError, ValueError):
        return False


def reachable(host: str) -> str:
    """An address under which a listener on every address is reached."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name to look up, nothing is bound


def bind_error(host: str, port: int) -> OSError | None:
    """What keeps a server from listening there; None if nothing does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # Connections that linger from a server before are no obstacle, a listening one is.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
