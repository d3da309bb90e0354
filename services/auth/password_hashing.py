"""Hashes passwords: argon2id (RFC 9106) over an HMAC of the password under the pepper (SP 800-63B-4, section 3.1.1.2).

A computation is meant to be slow and to need much memory, so few run at the same time, in threads of their own, and few
wait: a flood of sign-ins costs no more memory than that, and other requests go on. Strangers may take half of the
places to wait; the others are for callers who signed in before from where they are.
"""

import base64
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from prometheus_client import Counter

from services.auth.password_rules import normalize
from services.auth.pepper import Pepper
from services.shared.errors import ResourceExhausted

COMPUTATIONS = Counter("strongroom_password_computations_total", "argon2id computations.")

# Seconds until some place to wait is free again.
_RETRY_SECONDS = 1
# Keeps what is hashed here apart from keys and tokens, which are hashed under the same pepper.
_CONTEXT = "password\0"

T = TypeVar("T")


class SignInBusy(ResourceExhausted):
    reason = "SIGN_IN_BUSY"


class PasswordHashing:
    """Computes on `threads` threads; at most `waiting` computations wait for one of them."""

    def __init__(self, pepper: Pepper, hasher: PasswordHasher, *, threads: int, waiting: int) -> None:
        self._pepper = pepper
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._limits = {True: threads + waiting, False: threads + waiting // 2}
        self._pending = 0
        self._lock = threading.Lock()

    def hash(self, password: str, *, known: bool) -> str:
        """The hash to store. Raises SignInBusy if too many wait."""
        return self._compute(lambda: self._hasher.hash(self._keyed(password)), known=known)

    def verify(self, stored: str | None, password: str, *, known: bool) -> bool:
        """Whether the password is the stored one; without a stored one the same work and False. Raises SignInBusy."""
        against = stored or self._nobody()

        def compute() -> bool:
            try:
                return self._hasher.verify(against, self._keyed(password))
            except VerifyMismatchError:
                return False

        return self._compute(compute, known=known) and stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        self._pool.shutdown()

    def _keyed(self, password: str) -> bytes:
        return self._pepper.hash(_CONTEXT + normalize(password))

    def _nobody(self) -> str:
        """A hash with today's parameters that no password has."""
        made = self._hasher
        salt, digest = (_base64(secrets.token_bytes(size)) for size in (made.salt_len, made.hash_len))
        return f"$argon2id$v=19$m={made.memory_cost},t={made.time_cost},p={made.parallelism}${salt}${digest}"

    def _compute(self, computation: Callable[[], T], *, known: bool) -> T:
        with self._lock:
            if self._pending >= self._limits[known]:
                raise SignInBusy("Too many sign-ins at this moment. Try again.", retry_after=_RETRY_SECONDS)
            self._pending += 1
        try:
            COMPUTATIONS.inc()
            return self._pool.submit(computation).result()
        finally:
            with self._lock:
                self._pending -= 1


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")
