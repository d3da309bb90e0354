"""Rows of managers, as far as the manifests of their versions tell of them."""

from datetime import datetime

import sqlalchemy as sa

from services.models import condemned
from services.models import tables as t
from services.models.key_client import KeyClient
from services.models.managers import domain_context
from services.models.public_keys import PUBLIC_KEK
from services.models.version_keys import HasKeys, protected
from services.shared.errors import FailedPrecondition


class ManagerDiffers(FailedPrecondition):
    """A manager of that id is in use, under another key."""

    reason = "MANAGER_DIFFERS"


def restore(connection: sa.Connection, holder: HasKeys, kek_id: str, keys: KeyClient, now: datetime) -> bool:
    """Makes the manager of a version that is found again; True if it was not there. Its settings are the defaults.

    The newest version comes last: its dedup domain becomes the manager's. Raises ManagerDiffers.
    """
    manager_id = holder.manager_id
    this = t.managers.c.id == manager_id
    row = connection.execute(sa.select(t.managers).where(this).with_for_update()).one_or_none()
    used = sa.select(t.models.c.id).where(t.models.c.manager_id == manager_id).limit(1)
    if row is not None and (row.kek_id == kek_id or connection.execute(used).first() is not None):
        if row.kek_id != kek_id:
            raise ManagerDiffers(f"Manager {manager_id} was made anew under another key, and is in use.")
        return False
    domain_key_id = holder.domain_key_id
    if protected(holder):  # it has a domain of its own, so the manager's is not known
        domain_key_id = keys.generate(kek_id, domain_context(manager_id)).key_id
    condemned.refuse_condemned(connection, [condemned.name_of_key(domain_key_id)])
    found = {"kek_id": kek_id, "domain_key_id": domain_key_id, "enable_encryption": kek_id != PUBLIC_KEK}
    if row is not None:  # made anew after the loss, and never used
        connection.execute(sa.update(t.managers).where(this).values(found))
        return False
    connection.execute(sa.insert(t.managers).values(id=manager_id, created_at=now, **found))
    return True
