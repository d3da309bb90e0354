"""The embedded vault as a provider: what the others follow."""

from collections.abc import Callable, Iterator
from datetime import datetime

from services.secrets.providers.provider import Data, Revision, RevisionAbsent, RevisionMismatch, SecretAbsent, Value
from services.secrets.vault import Vault
from services.secrets.vault_errors import SecretVersionExpired
from services.secrets.vault_records import SecretVersion
from services.secrets.vault_search import Wanted, search
from services.shared.database import Database

_AUTHOR = "service:secrets"


class EmbeddedProvider:
    """Secrets in this service's database. What is deleted or expired is not there."""

    def __init__(self, vault: Vault, database: Database, clock: Callable[[], datetime]) -> None:
        self._vault = vault
        self._database = database
        self._clock = clock

    def put(self, name: str, data: Data, expected: str | None = None) -> Revision:
        if expected == "":
            return _revision(self._vault.create(name, data, _AUTHOR))
        if expected and not expected.isdecimal():
            raise RevisionMismatch(name)
        number = int(expected) if expected else None
        if number is not None and not self._there(name):
            raise RevisionMismatch(name)
        return _revision(self._vault.update(name, data, _AUTHOR, expected_version=number, allow_missing=True))

    def get(self, name: str, revision: str = "") -> Value:
        if revision and (not revision.isdecimal() or len(revision) > 9):
            raise RevisionAbsent(name, revision)
        try:
            found = self._vault.get(name, int(revision or 0))
        except SecretVersionExpired:
            raise (RevisionAbsent(name, revision) if revision else SecretAbsent(name)) from None
        return Value(_revision(found.about), found.data)

    def versions(self, name: str) -> list[Revision]:
        history = self._vault.history(name)
        return [_revision(version) for version in history if not (version.deleted_at or version.destroyed_at)]

    def list(self, prefix: str = "") -> Iterator[str]:
        after = ""
        while True:
            page = search(self._database, Wanted(prefix=prefix), visible=lambda _name: True, after=after, limit=500)
            now = self._clock()
            yield from (found.name for found in page.secrets if found.expires_at is None or found.expires_at > now)
            if not (after := page.next):
                return

    def delete(self, name: str) -> bool:
        if not self._there(name):
            return False
        self._vault.destroy(name)
        return True

    def check(self) -> None:
        self._database.check()

    def _there(self, name: str) -> bool:
        return next((found == name for found in self.list(name)), False)


def _revision(version: SecretVersion) -> Revision:
    return Revision(str(version.version), version.created_at)
