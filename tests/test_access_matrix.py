"""Who may call what: every method of the contract by every role and permission set, as a table that a person can read.

The table is `tests/access_matrix.md`. `python -m tests.test_access_matrix` writes it anew: read the difference before
you commit it, because it is a change of who may do what.
"""

import re
from pathlib import Path

import pytest

from services.auth import contract
from services.auth.permission_sets import EVERYWHERE, PERMISSION_SETS, UNNAMED
from services.auth.roles import PUBLIC_MANAGER, ROLES
from services.shared import access
from services.shared.access import Method, methods_of
from services.shared.errors import DomainError
from services.shared.identity import Grant, Principal

TABLE = Path(__file__).with_name("access_matrix.md")
YES, NO, SOME, OPEN = "yes", "–", "some", "open"
HEAD = """# Who may call what

- **yes**: on every resource. **some**: on what its grants name alone; of a guest, the models of the manager `public`.
- **open**: anyone with a valid credential may ask; the answer shows, or the call changes, the caller's own things alone
  unless a permission says more.
- **–**: refused. Methods between services are refused to everybody here.

"""


def _principals() -> dict[str, Principal]:
    sets = [*PERMISSION_SETS.values(), UNNAMED]
    return {
        "anonymous": Principal("anonymous"),
        **{role.name: Principal(f"user:{role.name}", grants=role.grants) for role in ROLES.values()},
        **{
            found.name: Principal(f"key:{found.name}", grants=(Grant("allow", found.permissions, (EVERYWHERE,)),))
            for found in sets
        },
    }


def _allowed(method: Method, name: str, principal: Principal, manager: str) -> bool:
    """Asks the interceptor's own decision, with a request whose every text field is `manager`.

    Fields that only switch a further rule on stay empty.
    """
    assert method.request_type is not None
    request = method.request_type()
    for rule in method.rules:
        for path in [] if rule.when else re.findall(r"\{([a-z_.]+)\}", rule.resource):
            message, names = request, path.split(".")
            for part in names[:-1]:
                message = getattr(message, part)
            setattr(message, names[-1], manager)
    try:
        access.authorize(method, None if name == "anonymous" else principal, lambda: request)
    except DomainError:
        return False
    return True


def _cell(method: Method, name: str, principal: Principal) -> str:
    if name != "anonymous" and any(rule.authenticated for rule in method.rules):
        return OPEN
    public = PUBLIC_MANAGER.split("/")[1]
    answers = {manager: _allowed(method, name, principal, manager) for manager in ("fraud", public)}
    return YES if answers["fraud"] else SOME if answers[public] else NO


def render() -> str:
    """The table as it follows from protos, roles and permission sets."""
    principals = _principals()
    lines = [["method", *principals], ["---"] * (len(principals) + 1)]
    for path, method in sorted(methods_of(contract.contract_services()).items()):
        name = path.removeprefix("/strongroom.")
        lines.append([name, *(_cell(method, name, principal) for name, principal in principals.items())])
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


@pytest.mark.row("S1.8")
@pytest.mark.row("S2.4")
@pytest.mark.row("B7")
def test_the_table_is_what_the_rules_say() -> None:
    assert TABLE.read_text() == render(), "run: python -m tests.test_access_matrix, and read the difference"


def test_the_table_has_every_method_and_every_role_and_set() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == len(methods_of(contract.contract_services())) + 2
    assert rows[0].count("|") == len(ROLES) + len(PERMISSION_SETS) + 4


if __name__ == "__main__":
    TABLE.write_text(render())
