"""A user's session: the access token that calls carry, and the refresh token that gets the next one.

A refresh token works once, and shown a second time it ends the session as stolen. So one thread of one process at a
time exchanges it, and whoever waited takes what that one got.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from strongroom.errors import Unauthenticated, Unavailable

# The part of an access token's life after which it is replaced: before it ends, so that no call is refused.
_RENEW_AFTER = 0.8


@dataclass(frozen=True)
class Tokens:
    """What a sign-in yields. Moments are in seconds since 1970, by this machine's clock."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    renew_at: float
    expires_at: float
    refresh_expires_at: float
    principal: str

    @classmethod
    def issued(
        cls, access_token: str, refresh_token: str, expires_in: int, refresh_expires_in: int, principal: str, now: float
    ) -> "Tokens":
        """Tokens that live for so many seconds from now on."""
        renew_at = now + _RENEW_AFTER * expires_in
        return cls(access_token, refresh_token, renew_at, now + expires_in, now + refresh_expires_in, principal)


@dataclass(frozen=True)
class AccessToken:
    """A JWT for `Authorization: Bearer`, and for how many seconds it is good."""

    access_token: str = field(repr=False)
    expires_in: int


class Renewing:
    """A token that is got anew before it ends. Safe to use from several threads.

    Args:
        get: gets one.
        clock: seconds.
    """

    def __init__(self, get: Callable[[], AccessToken], *, clock: Callable[[], float] = time.time) -> None:
        self._get = get
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def access_token(self) -> str:
        """A token that is valid now."""
        with self._lock:
            if self._clock() >= self._renew_at:
                got = self._get()
                self._token, self._renew_at = got.access_token, self._clock() + _RENEW_AFTER * got.expires_in
            return self._token

    def held(self) -> str | None:
        """A token, if one is held that need not be renewed."""
        token, renew_at = self._token, self._renew_at
        return token if self._clock() < renew_at else None


class TokenStore(Protocol):
    """Where the tokens of a session are kept."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Inside, nobody else exchanges the refresh token."""

    def load(self) -> Tokens | None:
        """The latest tokens; None if nobody is signed in."""

    def save(self, tokens: Tokens | None) -> None:
        """Replaces the tokens as a whole or not at all; None signs out."""


class MemoryStore:
    """Keeps the tokens for as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: Tokens | None = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._lock:
            yield

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        self._tokens = tokens


class Session:
    """A credential that renews itself. Safe to use from several threads.

    Args:
        exchange: makes new tokens of a refresh token.
        clock: seconds since 1970.
    """

    def __init__(
        self, store: TokenStore, exchange: Callable[[str], Tokens], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: Tokens | None = None

    def access_token(self) -> str:
        """A token that is valid now. Raises Unauthenticated if the session has ended."""
        held = self.held()
        if held is not None:
            return held
        with self._lock:
            tokens = self._tokens = self._current()
        return tokens.access_token

    def held(self) -> str | None:
        """A token, if one is held that need not be renewed."""
        tokens = self._tokens
        return tokens.access_token if tokens is not None and self._clock() < tokens.renew_at else None

    def _current(self) -> Tokens:
        """The store's tokens, which another thread or process may have renewed just now; else renewed here."""
        with self._store.exclusive():
            tokens = self._store.load()
            if tokens is None or self._clock() >= tokens.refresh_expires_at:
                raise Unauthenticated("Nobody is signed in.", code="UNAUTHENTICATED", reason="SESSION_ENDED")
            if self._tokens is not None and tokens.principal != self._tokens.principal:
                message = "Somebody else has signed in meanwhile."
                raise Unauthenticated(message, code="UNAUTHENTICATED", reason="SESSION_ENDED")
            if self._clock() < tokens.renew_at:
                return tokens
            try:
                renewed = self._exchange(tokens.refresh_token)
            except Unauthenticated as error:
                message = "The session has ended: sign in again."
                raise Unauthenticated(message, code=error.code, reason=error.reason, metadata=error.metadata) from None
            except Unavailable:
                if self._clock() >= tokens.expires_at:
                    raise
                # Good for a little longer. The next call tries again.
                return tokens
            self._store.save(renewed)
            return renewed
