"""The five roles of users: named lists of grants."""

from dataclasses import dataclass

from services.auth.permission_sets import EVERYWHERE
from services.shared.errors import InvalidArgument
from services.shared.identity import Grant

# The manager whose models a guest may read.
PUBLIC_MANAGER = "managers/public/**"


class RoleUnknown(InvalidArgument):
    reason = "ROLE_UNKNOWN"


@dataclass(frozen=True)
class Role:
    """What users of a role may do."""

    name: str
    description: str
    grants: tuple[Grant, ...]


def _role(name: str, description: str, *permissions: str, on: str = EVERYWHERE) -> Role:
    return Role(name, description, (Grant("allow", permissions, (on,)),))


ADMIN = _role("admin", "Everything, users, keys and maintenance included.", "*")

ROLES = {
    role.name: role
    for role in (
        ADMIN,
        _role(
            "researcher",
            "Trains and predicts, writes models and moves aliases.",
            *("models.read", "models.write", "models.alias", "configs.*", "artifacts.*", "jobs.*", "ml.*"),
        ),
        _role(
            "analyst",
            "Reads everything but secrets, predicts, and sees who uses how much.",
            *(
                "models.read",
                "configs.read",
                "artifacts.read",
                "artifacts.write",
                "jobs.read",
                "ml.predict",
                "usage.read",
            ),
        ),
        _role(
            "viewer",
            "Reads models, configs and results.",
            *("models.read", "configs.read", "artifacts.read", "jobs.read"),
        ),
        _role("guest", "Reads the models of the manager `public`.", "models.read", on=PUBLIC_MANAGER),
    )
}


def role(name: str) -> Role:
    """The role of that name. Raises RoleUnknown."""
    try:
        return ROLES[name]
    except KeyError:
        raise RoleUnknown(f"There is no role {name}. There are: {', '.join(ROLES)}.", role=name) from None
