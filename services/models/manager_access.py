"""What a caller may do with all of a manager, or with one model of which the request does not say the name. Pure."""

from services.shared.errors import PermissionDenied
from services.shared.identity import Principal


def may_on_all(principal: Principal, permission: str, manager_id: str) -> bool:
    """Whether the caller has the permission on everything in the manager.

    A deny of it anywhere might be about something in there, so whoever has one is treated like somebody without it.
    """
    denied = any(grant.effect == "deny" and grant.names(permission) for grant in principal.grants)
    return not denied and principal.allows(permission, f"managers/{manager_id}/**")


def require_on_all(principal: Principal, permission: str, manager_id: str) -> None:
    """Raises PermissionDenied."""
    if not may_on_all(principal, permission, manager_id):
        raise _missing(permission, f"managers/{manager_id}/**")


def may(principal: Principal, permission: str, manager_id: str, model_name: str) -> bool:
    """Whether the caller has the permission on the model."""
    return principal.allows(permission, f"managers/{manager_id}/models/{model_name}")


def require(principal: Principal, permission: str, manager_id: str, model_name: str) -> None:
    """Raises PermissionDenied."""
    if not may(principal, permission, manager_id, model_name):
        raise _missing(permission, f"managers/{manager_id}/models/{model_name}")


def _missing(permission: str, resource: str) -> PermissionDenied:
    return PermissionDenied(
        f"Permission {permission} on {resource} is missing. Ask an administrator for a key that has it.",
        reason="PERMISSION_MISSING",
        permission=permission,
        resource=resource,
    )
