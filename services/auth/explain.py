"""Why a principal may or may not do something, by the very rules that decide it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.auth.permission_sets import PERMISSIONS
from services.shared.access import Method
from services.shared.errors import InvalidArgument, NotFound, PermissionMissing
from services.shared.identity import Grant, Principal, resource_matches
from strongroom.options.v1.options_pb2 import AccessRule

# Who may ask about somebody else.
_PERMISSION, _RESOURCE = "access.read", "access"
_FIELD = re.compile(r"\{[a-z_.]+\}")


class PrincipalNotFound(NotFound):
    reason = "PRINCIPAL_NOT_FOUND"


class MethodUnknown(InvalidArgument):
    reason = "METHOD_UNKNOWN"


class MethodAmbiguous(InvalidArgument):
    reason = "METHOD_AMBIGUOUS"


class ResourceRequired(InvalidArgument):
    reason = "RESOURCE_REQUIRED"


class ResourceMismatch(InvalidArgument):
    reason = "RESOURCE_MISMATCH"


# Finds a principal by what stands behind `<kind>:`; None if there is none.
Directory = Callable[[str], Principal | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one rule. `decided_by` are the grants that speak about it; of those a deny beats every allow."""

    kind: str
    passed: bool
    permission: str = ""
    resource: str = ""
    decided_by: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and every rule it rests on; all of them must pass. `subject` is a method's path or a permission."""

    principal: Principal
    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def allowed(self) -> bool:
        return bool(self.outcomes) and all(outcome.passed for outcome in self.outcomes)

    def sentence(self) -> str:
        """The decision in one sentence."""
        failed = next((outcome for outcome in self.outcomes if not outcome.passed), None)
        verb = "may" if self.allowed else "may not"
        decisive = failed or (self.outcomes[0] if self.outcomes else None)
        return f"{self.principal.id} {verb} use {self.subject}: {_because(decisive)}."


class Explainer:
    """Explains access.

    Args:
        methods: every method of the contract, by path.
        directories: finds principals, by kind.
    """

    def __init__(self, methods: Mapping[str, Method], directories: Mapping[str, Directory]) -> None:
        self._methods = methods
        self._directories = directories

    def explain(self, caller: Principal, principal: str, subject: str, resource: str) -> Explanation:
        """Whether the principal may use a method or a permission on the resource, and why.

        Raises:
            PermissionDenied: the caller asks about somebody else and may not.
            PrincipalNotFound: there is nobody of that name.
            InvalidArgument: METHOD_UNKNOWN, METHOD_AMBIGUOUS, RESOURCE_REQUIRED or RESOURCE_MISMATCH.
        """
        who = self._principal(caller, principal)
        if subject in PERMISSIONS:
            if not resource:
                raise ResourceRequired("Name the resource, for example managers/default/models/scorer.")
            return Explanation(who, subject, (_permission(who, subject, resource),))
        method = self._method(subject)
        # Those that count for some requests alone are about another resource: ask for their permission.
        always = [rule for rule in method.rules if not rule.when]
        return Explanation(who, method.path, tuple(_outcome(who, rule, resource) for rule in always))

    def _principal(self, caller: Principal, name: str) -> Principal:
        if name in ("self", caller.id):
            return caller
        if not caller.allows(_PERMISSION, _RESOURCE):
            raise PermissionMissing(_PERMISSION, _RESOURCE, "Without it you may ask about `self` alone.")
        kind, _, rest = name.partition(":")
        directory = self._directories.get(kind)
        found = directory(rest) if directory else None
        if found is None:
            kinds = ", ".join(f"{kind}:…" for kind in self._directories)
            raise PrincipalNotFound(f"There is no principal {name}. Principals are self, {kinds}.", principal=name)
        return found

    def _method(self, name: str) -> Method:
        wanted = "/" + name.strip("/").replace("/", ".")
        found = [method for path, method in self._methods.items() if _is_called(path, wanted)]
        if not found:
            raise MethodUnknown(f"There is no method and no permission {name}.", method=name)
        if len(found) > 1:
            names = ", ".join(method.path.lstrip("/") for method in found)
            raise MethodAmbiguous(f"{name} is the name of several methods: {names}.", method=name)
        return found[0]


def _is_called(path: str, wanted: str) -> bool:
    """Whether `/package.Service/Method` ends in the dotted name, at the border of a part."""
    full = path.replace("/", ".")
    return full.endswith("." + wanted.lstrip("/"))


def _outcome(who: Principal, rule: AccessRule, resource: str) -> Outcome:
    if rule.public:
        return Outcome("public", passed=True)
    if rule.services:
        return Outcome("services", passed=False)
    if rule.authenticated:
        return Outcome("authenticated", passed=True)
    if rule.filtered:
        speaking = tuple(grant for grant in who.grants if grant.names(rule.permission))
        return Outcome("permission", who.allows_anywhere(rule.permission), rule.permission, "", speaking)
    return _permission(who, rule.permission, _resource(rule.resource, resource))


def _resource(template: str, given: str) -> str:
    """The resource asked about: the template's own where it has no fields."""
    if "{" not in template:
        return template
    if not given:
        raise ResourceRequired(f"Name the resource, {template}.")
    # A field may hold slashes, such as the path of a secret.
    if not resource_matches(_FIELD.sub("**", template), given):
        raise ResourceMismatch(f"The resources of this method look like {template}.", resource=given)
    return given


def _permission(who: Principal, permission: str, resource: str) -> Outcome:
    speaking = tuple(grant for grant in who.grants if grant.covers(permission, resource))
    return Outcome("permission", who.allows(permission, resource), permission, resource, speaking)


def _because(outcome: Outcome | None) -> str:
    if outcome is None:
        return "it has no access rule"
    if outcome.kind != "permission":
        return {
            "public": "anyone may",
            "authenticated": "anyone with a valid credential may",
            "services": "only services of this installation may",
        }[outcome.kind]
    asked = f"{outcome.permission} on {outcome.resource or 'some resource'}"
    denies = [grant for grant in outcome.decided_by if grant.effect == "deny"]
    if not outcome.passed and denies:
        return f"{asked} is denied by {_line(denies[0])}"
    if not outcome.passed:
        return f"nothing allows {asked}"
    allows = [grant for grant in outcome.decided_by if grant.effect == "allow"]
    return f"{asked} is allowed by {_line(allows[0])}"


def _line(grant: Grant) -> str:
    return f"`{grant.effect} {', '.join(grant.permissions)} on {', '.join(grant.resources)}`"
