"""What the environment tells the gateway: which websites may ask, how often a client may, and whose tokens count."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from strongroom import rates
from strongroom.local.errors import StartError

RATE_LIMIT = "STRONGROOM_RATE_LIMIT"
ALLOWED_ORIGINS = "STRONGROOM_ALLOWED_ORIGINS"
# The name that the registry's documents give it.
_ALIAS = "ALLOWED_ORIGINS"

PUBLIC_URL = "STRONGROOM_PUBLIC_URL"
SIGNING_KEY_DELAY = "STRONGROOM_SIGNING_KEY_DELAY_SECONDS"
# Auth's own defaults.
_ISSUER = "strongroom"
_DELAY_SECONDS = 90

HSTS = "STRONGROOM_HSTS_SECONDS"
IDLE = "STRONGROOM_IDLE_SECONDS"
MEMORY = "STRONGROOM_GATEWAY_MEMORY_MB"
_LEAST_MEMORY_MB = 128
# What the container may take, where it has a limit.
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
_DAY = 86_400
_YEAR = 365 * _DAY
AUTH_MODE = "STRONGROOM_AUTH_MODE"

# Scheme, host and port, as browsers write them (RFC 6454, section 6.2): in lower case, without a slash at the end.
_ORIGIN = re.compile(r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")


@dataclass(frozen=True)
class Policy:
    """`origins` are the websites that may send requests beside the gateway's own, `rate` is that of one client, None
    for no limit. `issuer` is `iss` of access tokens; the key set that verifies them is kept for `key_set_seconds`.
    With `open`, nobody needs a credential.
    """

    origins: tuple[str, ...]
    rate: rates.Rate | None
    issuer: str = _ISSUER
    key_set_seconds: int = 60
    open: bool = False
    # Seconds for which browsers shall know this host by https alone; 0 for no word about it.
    hsts: int = _YEAR
    # Seconds for which nothing may move in a request or its answer.
    idle_seconds: int = 600
    # Bytes that the gateway may take, most of them for answers that callers do not read.
    memory_bytes: int = 1 << 30

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Policy":
        """Raises StartError with a sentence for the user."""
        try:
            rate = rates.parse(environment.get(RATE_LIMIT) or rates.DEFAULT)
        except ValueError as error:
            raise StartError(f"{RATE_LIMIT}: {error}") from None
        origins = _origins(environment.get(ALLOWED_ORIGINS) or environment.get(_ALIAS, ""))
        issuer = environment.get(PUBLIC_URL) or _ISSUER
        return cls(
            origins,
            rate,
            issuer,
            _key_set_seconds(environment),
            environment.get(AUTH_MODE) == "open",
            **_numbers(environment),
        )

    def hosts(self, listen: str) -> list[str]:
        """The names under which the gateway answers pages of its own; `listen` is where it listens."""
        public = urlsplit(self.issuer).netloc.rpartition("@")[2]
        named = re.sub(r":[0-9]+$", "", public)
        return sorted({"localhost", listen.lower(), named.lower()} - {""})


def _key_set_seconds(environment: Mapping[str, str]) -> int:
    """Auth publishes a key for a delay before it signs with it: two thirds of that, at most a minute."""
    delay = environment.get(SIGNING_KEY_DELAY) or str(_DELAY_SECONDS)
    if not delay.isdecimal() or int(delay) < 5:
        raise StartError(f"{SIGNING_KEY_DELAY} is a number of seconds, 5 or more.")
    return min(60, int(delay) * 2 // 3)


def _numbers(environment: Mapping[str, str]) -> dict[str, int]:
    hsts, idle = environment.get(HSTS) or str(_YEAR), environment.get(IDLE) or "600"
    if not hsts.isdecimal() or int(hsts) > 2 * _YEAR:
        raise StartError(f"{HSTS} is a number of seconds, at most two years; 0 for none.")
    if not idle.isdecimal() or not 1 <= int(idle) <= _DAY:
        raise StartError(f"{IDLE} is a number of seconds, from 1 to a day.")
    memory = environment.get(MEMORY) or str(max(_LEAST_MEMORY_MB, _machine_bytes() >> 21))
    if not memory.isdecimal() or int(memory) < _LEAST_MEMORY_MB:
        raise StartError(f"{MEMORY} is a number of MiB, {_LEAST_MEMORY_MB} or more.")
    return {"hsts": int(hsts), "idle_seconds": int(idle), "memory_bytes": int(memory) << 20}


def _machine_bytes() -> int:
    """The memory there is, for all that runs here."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CONTAINER.read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdecimal() else whole


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    for origin in origins:
        if origin == "*":
            raise StartError(f"{ALLOWED_ORIGINS}: `*` would let every website in; name those that may.")
        if not _ORIGIN.fullmatch(origin):
            raise StartError(
                f"{ALLOWED_ORIGINS}: {origin[:100]!r} is no origin. "
                "Write it as browsers do, for example https://app.example.com or http://localhost:3000."
            )
    return origins
