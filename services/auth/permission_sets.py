"""Permissions and the named sets of them that API keys are created with."""

from dataclasses import dataclass

from services.shared.errors import InvalidArgument
from services.shared.identity import Grant

# Everything a principal may be allowed; a proto's access rule names one of these.
PERMISSIONS = frozenset(
    {
        "models.read",
        "models.write",
        "models.delete",
        "models.alias",
        "configs.read",
        "configs.write",
        "configs.delete",
        "artifacts.read",
        "artifacts.write",
        "artifacts.delete",
        "jobs.read",
        "jobs.cancel",
        "ml.train",
        "ml.predict",
        "secrets.read",
        "secrets.list",
        "secrets.write",
        "secrets.delete",
        "secrets.destroy",
        "providers.use",
        "keys.read",
        "keys.write",
        "users.read",
        "users.write",
        "access.read",
        "audit.read",
        "usage.read",
        "system.maintain",
    }
)
PERMISSION_PATTERNS = PERMISSIONS | {f"{permission.partition('.')[0]}.*" for permission in PERMISSIONS} | {"*"}

EVERYWHERE = "**"
# Of a pattern; no resource has as many. Comparing two patterns takes the product of their segments.
_MAX_SEGMENTS = 32


class PermissionSetUnknown(InvalidArgument):
    reason = "PERMISSION_SET_UNKNOWN"


class PermissionsRequired(InvalidArgument):
    reason = "PERMISSIONS_REQUIRED"


class PermissionUnknown(InvalidArgument):
    reason = "PERMISSION_UNKNOWN"


class ScopeInvalid(InvalidArgument):
    reason = "SCOPE_INVALID"


@dataclass(frozen=True)
class PermissionSet:
    """A named list of permissions."""

    name: str
    description: str
    permissions: tuple[str, ...]


FULL_ACCESS = PermissionSet("full_access", "Everything, keys and maintenance included: for administrators.", ("*",))

_READ = ("models.read", "configs.read", "artifacts.read", "jobs.read")
_TRAIN = (*_READ, "models.write", "artifacts.write", "jobs.cancel", "ml.train")

# What a credential may do that the environment gives without saying what for: use the product, never administer it.
UNNAMED = PermissionSet(
    "unnamed",
    "Uses models, configs and jobs; no secrets, no administration.",
    ("models.*", "configs.*", "artifacts.*", "jobs.*", "ml.*"),
)

PERMISSION_SETS = {
    permission_set.name: permission_set
    for permission_set in (
        PermissionSet("read_only", "Reads models, configs and results; no secrets, no keys.", _READ),
        PermissionSet("training_pipeline", "Keeps configs, trains, writes models.", (*_TRAIN, "configs.write")),
        PermissionSet(
            "prefect_workflows",
            "Trains and predicts, writes and deletes models, and reads secrets.",
            (*_TRAIN, "configs.*", "models.alias", "models.delete", "ml.predict", "secrets.read", "secrets.list"),
        ),
        FULL_ACCESS,
        PermissionSet("train", "Trains: reads and writes models.", _TRAIN),
        PermissionSet("predict", "Predicts: reads models.", (*_READ, "artifacts.write", "ml.predict")),
    )
}


def resolve(permission_set: str, permissions: tuple[str, ...], scopes: tuple[str, ...]) -> Grant:
    """The grant that a request for a key describes.

    Args:
        permission_set: a name from PERMISSION_SETS, or empty.
        permissions: permission patterns, or none. Exactly one of the two is given.
        scopes: resource patterns that limit the grant; none means no limit.
    """
    if permission_set and permissions:
        raise PermissionsRequired("Give either permission_set or permissions, not both.")
    if permission_set:
        permissions = _named(permission_set).permissions
    if not permissions:
        raise PermissionsRequired("Give permission_set, at least one permission, or grants.")
    check_permissions(permissions)
    check_scopes(scopes)
    return Grant("allow", tuple(dict.fromkeys(permissions)), tuple(dict.fromkeys(scopes)) or (EVERYWHERE,))


def check_permissions(permissions: tuple[str, ...]) -> None:
    """Raises PermissionUnknown for the first that is none."""
    for permission in permissions:
        if permission not in PERMISSION_PATTERNS:
            raise PermissionUnknown(
                f"There is no permission {permission}. There are: {', '.join(sorted(PERMISSIONS))}.",
                permission=permission,
            )


def check_scopes(scopes: tuple[str, ...]) -> None:
    """Raises ScopeInvalid for the first pattern that makes no sense."""
    for scope in scopes:
        segments = scope.split("/")
        # Resources have no empty segments, so such a pattern could only ever match by mistake.
        if not all(segments):
            raise ScopeInvalid(f"The scope {scope} has an empty segment. Write it like managers/fraud/**.", scope=scope)
        if len(segments) > _MAX_SEGMENTS:
            raise ScopeInvalid(f"A scope has at most {_MAX_SEGMENTS} segments between slashes.", scope=scope)


def _named(name: str) -> PermissionSet:
    try:
        return PERMISSION_SETS[name]
    except KeyError:
        known = ", ".join(PERMISSION_SETS)
        raise PermissionSetUnknown(
            f"There is no permission set {name}. There are: {known}.", permission_set=name
        ) from None
