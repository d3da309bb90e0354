"""Why somebody may or may not do something."""

import pytest

from services.auth import contract
from services.auth.explain import (
    Explainer,
    MethodAmbiguous,
    MethodUnknown,
    PrincipalNotFound,
    ResourceMismatch,
    ResourceRequired,
)
from services.shared.access import methods_of
from services.shared.errors import PermissionDenied
from services.shared.identity import Grant, Principal

MODEL = "managers/fraud/models/scorer"
ADMINISTRATOR = Principal("key:admin", grants=(Grant("allow", ("*",), ("**",)),))
PROMOTER = Principal(
    "key:promoter",
    grants=(
        Grant("allow", ("models.read", "models.alias"), ("managers/**",)),
        Grant("deny", ("models.alias",), ("managers/*/models/*/aliases/champion",)),
    ),
)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    keys = {"promoter": PROMOTER}
    return Explainer(methods_of(contract.contract_services()), {"key": keys.get})


def test_names_the_grant_that_allows(explainer: Explainer) -> None:
    found = explainer.explain(ADMINISTRATOR, "key:promoter", "GetVersion", MODEL)
    assert found.allowed
    assert found.outcomes[0].decided_by == (PROMOTER.grants[0],)
    assert found.sentence() == (
        "key:promoter may use /strongroom.models.v1.ModelService/GetVersion: "
        f"models.read on {MODEL} is allowed by `allow models.read, models.alias on managers/**`."
    )


def test_names_the_permission_that_nothing_allows(explainer: Explainer) -> None:
    found = explainer.explain(ADMINISTRATOR, "key:promoter", "CommitUpload", MODEL)
    assert (found.allowed, found.outcomes[0].decided_by) == (False, ())
    assert f"nothing allows models.write on {MODEL}" in found.sentence()


def test_any_alias_but_champion(explainer: Explainer) -> None:
    def may(alias: str) -> str:
        found = explainer.explain(ADMINISTRATOR, "key:promoter", "models.alias", f"{MODEL}/aliases/{alias}")
        assert found.allowed is (alias != "champion")
        return found.sentence()

    assert "is allowed by `allow models.read, models.alias on managers/**`" in may("staging")
    assert "is denied by `deny models.alias on managers/*/models/*/aliases/champion`" in may("champion")


@pytest.mark.parametrize(
    "name",
    [
        "DeleteVersion",
        "ModelService/DeleteVersion",
        "strongroom.models.v1.ModelService/DeleteVersion",
        "/strongroom.models.v1.ModelService/DeleteVersion",
        "strongroom.models.v1.ModelService.DeleteVersion",
    ],
)
def test_methods_go_by_short_and_full_names(explainer: Explainer, name: str) -> None:
    assert (
        explainer.explain(PROMOTER, "self", name, MODEL).subject == "/strongroom.models.v1.ModelService/DeleteVersion"
    )


def test_what_is_open_to_anyone_needs_no_resource(explainer: Explainer) -> None:
    assert explainer.explain(PROMOTER, "self", "GetCaller", "").outcomes[0].kind == "authenticated"
    assert explainer.explain(PROMOTER, "self", "GetHealth", "").sentence().endswith("anyone may.")
    assert not explainer.explain(ADMINISTRATOR, "self", "ListRevocations", "").allowed


def test_a_list_that_is_filtered_is_open_to_who_may_see_some_of_it(explainer: Explainer) -> None:
    assert explainer.explain(PROMOTER, "self", "ListModels", "").allowed
    assert not explainer.explain(PROMOTER, "self", "ListSecrets", "").allowed


def test_a_caller_may_ask_about_itself_alone(explainer: Explainer) -> None:
    assert explainer.explain(PROMOTER, "key:promoter", "GetCaller", "").allowed
    with pytest.raises(PermissionDenied):
        explainer.explain(PROMOTER, "key:other", "GetCaller", "")


@pytest.mark.parametrize(
    ("principal", "method", "resource", "error"),
    [
        ("key:nobody", "GetVersion", MODEL, PrincipalNotFound),
        ("planet:mars", "GetVersion", MODEL, PrincipalNotFound),
        ("self", "NoSuchMethod", MODEL, MethodUnknown),
        ("self", "Version", MODEL, MethodUnknown),
        ("self", "models.fly", MODEL, MethodUnknown),
        ("self", "GetVersion", "", ResourceRequired),
        ("self", "models.read", "", ResourceRequired),
        ("self", "GetVersion", "secrets/prod", ResourceMismatch),
    ],
)
def test_bad_questions(
    explainer: Explainer, principal: str, method: str, resource: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        explainer.explain(ADMINISTRATOR, principal, method, resource)


def test_a_name_that_several_methods_have_is_ambiguous() -> None:
    methods = methods_of(contract.contract_services())
    twin = methods["/strongroom.models.v1.ModelService/GetVersion"]
    twins = methods | {"/strongroom.models.v2.ModelService/GetVersion": twin}
    with pytest.raises(MethodAmbiguous):
        Explainer(twins, {}).explain(ADMINISTRATOR, "self", "GetVersion", MODEL)
