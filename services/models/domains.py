"""Domain secrets that nothing needs any more: a secret dies with its last reference."""

import sqlalchemy as sa

from services.models import condemned
from services.models import tables as t


def unreferenced(connection: sa.Connection, domain_key_id: str) -> list[str]:
    """The secret's name, to be condemned, if no manager, version or open upload refers to it; else nothing.

    Expects `tables.hold_references(removing=True)` before.
    """
    references = (
        sa.select(t.managers.c.id).where(t.managers.c.domain_key_id == domain_key_id),
        sa.select(t.versions.c.uid).where(t.versions.c.domain_key_id == domain_key_id),
        sa.select(t.uploads.c.id).where(t.uploads.c.domain_key_id == domain_key_id, t.uploads.c.state == "open"),
    )
    if any(connection.execute(query.limit(1)).first() is not None for query in references):
        return []
    return [condemned.name_of_key(domain_key_id)]
