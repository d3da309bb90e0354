"""Moving to another root key, or to another key under the same one, while everything is in use.

First a new generation is current: from then on nothing is wrapped by an older one. Then KEKs are wrapped anew, step by
step, each step one transaction: at any moment each is wrapped by exactly one generation that is there. Last, older
generations are deleted. What a crash interrupts, the next step takes up.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from services.secrets import envelope
from services.secrets.envelope import EnvelopeError
from services.secrets.keyring import KekDamaged, kek_aad
from services.secrets.root_generations import Generation, RootGenerations
from services.secrets.tables import kek_versions
from services.shared.database import Database

# KEKs of one transaction: so long others wait to write.
STEP = 5_000


@dataclass(frozen=True)
class MoveStep:
    """What a step has done; `left` versions of KEKs are wrapped by older generations."""

    current: Generation
    rewrapped: int
    left: int


class RootMove:
    """Moves installations from one root key to another."""

    def __init__(self, database: Database, generations: RootGenerations, step: int = STEP) -> None:
        self._database = database
        self._generations = generations
        self._step = step

    def move(self, name: str) -> MoveStep:
        """Begins a move to the named root key, or goes on with one to it; repeat it until nothing is left.

        Moving to the key that is current begins too, unless a move to it is under way: it exchanges the generation.
        Raises RootKeyUnknown, RootKeyError, RootKeyUnavailable, KekDamaged.
        """
        current, *older = self._generations.listing()
        if not older or current.name != name:
            self._generations.add(name)
        return self.go_on()

    def go_on(self) -> MoveStep:
        """A step of the move that is under way, if one is."""
        v = kek_versions.c
        with self._database.write() as connection:
            number, key = self._generations.current(connection)
            older = sa.select(kek_versions).where(v.root_generation < number)
            rows = connection.execute(
                older.order_by(v.owner, v.kek_id, v.version).limit(self._step).with_for_update()
            ).all()
            changed = []
            for row in rows:
                aad = kek_aad(row.owner, row.kek_id, row.version)
                try:
                    kek = envelope.unseal(self._generations.key(connection, row.root_generation), row.wrapped, aad)
                except EnvelopeError:
                    raise KekDamaged(row.kek_id) from None
                this = {"owner_": row.owner, "kek": row.kek_id, "version_": row.version, "generation": number}
                changed.append({**this, "wrapped_": envelope.seal(key, kek, aad)})
            if changed:
                connection.execute(_REWRAP, changed)
        self._database.forget_deleted()
        if len(rows) < self._step:
            self._generations.drop_unused()
        current, *others = self._generations.listing()
        return MoveStep(current, len(changed), sum(generation.keks for generation in others))


_REWRAP = (
    sa.update(kek_versions)
    .where(
        kek_versions.c.owner == sa.bindparam("owner_"),
        kek_versions.c.kek_id == sa.bindparam("kek"),
        kek_versions.c.version == sa.bindparam("version_"),
    )
    .values(wrapped=sa.bindparam("wrapped_"), root_generation=sa.bindparam("generation"))
)
