"""Whom an address stands for."""

import ipaddress

# Whoever has one IPv6 address has 2^64 of them (RFC 6177).
_BITS = 64
# Longer than any address: what is none is kept as a name all the same, and fills no memory.
_MAX_CHARACTERS = 128


def network(address: str) -> str:
    """The address; of IPv6 the /64 that one customer has, however many addresses they use of it.

    An IPv4 address that is written as one of IPv6 (RFC 4291, section 2.5.5.2) is that IPv4 address: their /64 would be
    all of IPv4. A zone (`fe80::1%eth0`) is left out. What is no address stands for itself.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_MAX_CHARACTERS]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, _BITS), strict=False))
