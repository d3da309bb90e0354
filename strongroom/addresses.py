"""Where a service is found: `host:port`, or those of all its replicas with commas between them."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """One replica, or by a host's name as many as it resolves to."""

    host: str
    port: int

    @property
    def version(self) -> int:
        """4 or 6 for an IP address, 0 for a name."""
        try:
            return ipaddress.ip_address(self.host).version
        except ValueError:
            return 0


def parse(text: str) -> list[Address]:
    """The addresses. Raises ValueError with a sentence for the user."""
    return [_address(part.strip()) for part in text.split(",")]


def target(text: str) -> str:
    """The same as gRPC names it: one channel to all of them.

    Raises ValueError for several that are not IP addresses of one kind: gRPC resolves one name, to all that it has.
    """
    addresses = parse(text)
    if len(addresses) == 1:
        return text.strip()
    versions = {address.version for address in addresses}
    if len(versions) > 1 or versions == {0}:
        raise ValueError(
            f"{text!r}: services find several addresses if all are IPv4 or all are IPv6. "
            "Otherwise give one name that resolves to every replica."
        )
    # https://github.com/grpc/grpc/blob/master/doc/naming.md
    [version] = versions
    hosts = (f"[{a.host}]:{a.port}" if version == 6 else f"{a.host}:{a.port}" for a in addresses)
    return f"ipv{version}:{','.join(hosts)}"


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    plain = host and not any(character in "/@[], \t" for character in host)
    if not plain or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in host and not text.startswith("[")):
        raise ValueError(f"{text!r} is no address. Write host:port, and several with commas between them.")
    return Address(host, int(port))
