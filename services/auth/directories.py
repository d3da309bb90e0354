"""Where the principals of each kind are found, to explain what they may do."""

from services.auth.api_keys import ApiKeys
from services.auth.explain import Directory
from services.auth.key_rules import ApiKeyNotFound
from services.auth.permission_sets import EVERYWHERE, PERMISSION_SETS
from services.auth.roles import ROLES
from services.auth.users import Users
from services.shared.identity import Grant, Principal


def directories(api_keys: ApiKeys, users: Users) -> dict[str, Directory]:
    """The directories by kind of principal; `role` and `set` stand for whoever has them."""

    def key(key_id: str) -> Principal | None:
        try:
            return api_keys.get(key_id).principal()
        except ApiKeyNotFound:
            return None

    def user(name: str) -> Principal | None:
        found = users.find(name)
        # Who may not sign in may do nothing.
        return found.principal() if found and found.is_active else None

    return {"key": key, "user": user, "role": _role, "set": _permission_set}


def _role(name: str) -> Principal | None:
    found = ROLES.get(name)
    return Principal(f"role:{name}", grants=found.grants) if found else None


def _permission_set(name: str) -> Principal | None:
    found = PERMISSION_SETS.get(name)
    return Principal(f"set:{name}", grants=(Grant("allow", found.permissions, (EVERYWHERE,)),)) if found else None
