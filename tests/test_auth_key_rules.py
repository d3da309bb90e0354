"""What may be changed about a key, by whom, and that no key is a way to more than its maker holds."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest

from services.auth.permission_sets import PERMISSION_SETS
from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import tokens_pb2
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation, reason_of

SOMEBODY = "user:01ARZ3NDEKTSV4RRFFQ69G5FAV"
ALIAS = "managers/*/models/*/aliases"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth() as running:
        yield running


def _works(auth: Auth, key: str) -> bool:
    return auth.check_key(key).HasField("ok_response")


def _refused(auth: Auth, method: str, key: str = BOOTSTRAP_KEY, **fields: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        auth.keys(method, key, **fields)
    return reason_of(caught.value)


def _line(effect: str, permission: str, resource: str) -> tokens_pb2.Grant:
    return tokens_pb2.Grant(effect=effect, permissions=[permission], resources=[resource])


def _quota(usage_class: str, requests: int, per: str) -> pb.Quota:
    return pb.Quota(usage_class=usage_class, requests=requests, per=per)


def _grants(auth: Auth, key: str) -> list[tuple[str, list[str], list[str]]]:
    caller = auth.call(key, "TokenService", "GetCaller", tokens_pb2.GetCallerRequest())
    return [(grant.effect, list(grant.permissions), list(grant.resources)) for grant in caller.grants]


@pytest.mark.row("S2.4")
def test_a_key_may_have_lines_that_allow_and_deny(auth: Auth) -> None:
    lines = [
        _line("allow", "models.alias", f"{ALIAS}/*"),
        _line("deny", "models.alias", f"{ALIAS}/champion"),
        tokens_pb2.Grant(effect="allow", permissions=["models.read"]),
    ]
    made = auth.create(grants=lines)
    assert (made.permission_set, list(made.permissions), list(made.scopes)) == ("", [], [])
    assert [grant.effect for grant in made.grants] == ["allow", "deny", "allow"]
    assert _grants(auth, made.key)[1:] == [
        ("deny", ["models.alias"], [f"{ALIAS}/champion"]),
        ("allow", ["models.read"], ["**"]),
    ]
    # Of a key with a set, the same in lines.
    [written_out] = auth.create(permission_set="predict", scopes=["managers/a/**"]).grants
    assert (list(written_out.permissions), list(written_out.resources)) == (
        list(PERMISSION_SETS["predict"].permissions),
        ["managers/a/**"],
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"grants": [_line("deny", "models.read", "**")]}, "PERMISSIONS_REQUIRED"),
        ({"grants": [_line("allow", "models.fly", "**")]}, "PERMISSION_UNKNOWN"),
        ({"grants": [_line("allow", "models.read", "a//b")]}, "SCOPE_INVALID"),
        ({"grants": [_line("allow", "models.read", "a/" * 40 + "b")]}, "SCOPE_INVALID"),
        ({"grants": [_line("perhaps", "models.read", "**")]}, "FIELD_INVALID"),
        ({"grants": [_line("allow", "models.read", "**")], "permission_set": "train"}, "PERMISSIONS_REQUIRED"),
        ({"grants": [_line("allow", "models.read", "**")], "permissions": ["models.read"]}, "PERMISSIONS_REQUIRED"),
        ({"grants": [_line("allow", "models.read", "**")], "scopes": ["a/**"]}, "SCOPE_INVALID"),
        ({"grants": [_line("allow", "models.read", f"a{n}/{'x' * 500}") for n in range(20)]}, "GRANTS_TOO_LARGE"),
        ({"permission_set": "train", "quotas": [_quota("train", 1, "day")] * 2}, "QUOTA_INVALID"),
        ({"permission_set": "train", "quotas": [_quota("train", 0, "day")]}, "FIELD_INVALID"),
        ({"permission_set": "train", "quotas": [_quota("train", 1, "week")]}, "FIELD_INVALID"),
        ({"permission_set": "train", "owner": "somebody"}, "OWNER_INVALID"),
        ({"permission_set": "train", "owner": "user:a b"}, "OWNER_INVALID"),
    ],
)
def test_senseless_wishes_are_refused(auth: Auth, fields: dict[str, Any], reason: str) -> None:
    assert _refused(auth, "CreateApiKey", name="senseless", **fields) == reason


def test_the_largest_key_there_may_be_passes_every_service(auth: Auth) -> None:
    """Its token is a header, for which gRPC has room for 16 KiB unless told otherwise."""
    lines = [_line("allow", "models.read", f"managers/{n:02}{'é' * 100}/**") for n in range(12)]
    made = auth.create(name="\N{GRINNING FACE}" * 255, grants=lines)
    [(_, token)] = auth.identity(made.key, "/strongroom.auth.v1.TokenService/GetCaller")
    assert len(token) > 12_000
    assert len(_grants(auth, made.key)) == 12


def test_a_denial_stays_with_whatever_a_key_makes(auth: Auth) -> None:
    denied = [_line("allow", "*", "**"), _line("deny", "secrets.*", "secrets/prod/**")]
    maker = auth.create(grants=denied)
    assert _refused(auth, "CreateApiKey", maker.key, name="x", permission_set="full_access") == "GRANT_NOT_COVERED"
    assert _refused(auth, "UpdateApiKey", maker.key, id=maker.id, permission_set="full_access") == "GRANT_NOT_COVERED"
    child = auth.create(maker.key, grants=denied)
    assert _grants(auth, child.key)[1] == ("deny", ["secrets.*"], ["secrets/prod/**"])
    auth.create(maker.key, permission_set="predict")


@pytest.mark.row("S2.5")
def test_a_key_has_an_owner_who_is_its_maker_unless_another_is_named(auth: Auth) -> None:
    [administrator] = [key for key in auth.keys("ListApiKeys").api_keys if key.name == "administrator"]
    own = auth.create(permission_set="read_only")
    assert (own.owner, own.created_by) == (f"key:{administrator.id}",) * 2
    named = auth.create(permission_set="read_only", owner=SOMEBODY)
    assert (named.owner, named.created_by) == (SOMEBODY, f"key:{administrator.id}")
    steward = auth.create(permissions=["keys.write", "models.read"])
    refused = _refused(auth, "CreateApiKey", steward.key, name="x", permissions=["models.read"], owner=SOMEBODY)
    assert refused == "PERMISSION_MISSING"
    child = auth.create(steward.key, permissions=["models.read"], owner=f"key:{steward.id}")
    # The owner needs no permission for its own.
    plain = auth.create(permission_set="read_only")
    owned = auth.create(permission_set="read_only", owner=f"key:{plain.id}")
    assert auth.keys("GetApiKey", plain.key, id=owned.id).id == owned.id
    assert auth.keys("RotateApiKey", plain.key, id=owned.id).version == 2
    assert not auth.keys("RevokeApiKey", plain.key, id=owned.id).is_active
    assert [key.id for key in auth.keys("ListApiKeys", owner=f"key:{steward.id}").api_keys] == [child.id]


@pytest.mark.row("S2.3")
def test_a_list_is_of_ones_own_keys_unless_one_may_read_others(installed: Installation) -> None:
    with installed.auth(database="lists") as auth:
        maker = auth.create(name="maker", permissions=["keys.write", "models.read"])
        own = [auth.create(maker.key, name=f"own {n}", permissions=["models.read"]) for n in range(3)]
        auth.create(name="other", permission_set="read_only")
        auth.keys("RevokeApiKey", maker.key, id=own[1].id)
        page = auth.keys("ListApiKeys", maker.key, page_size=2)
        rest = auth.keys("ListApiKeys", maker.key, page_size=2, page_token=page.next_page_token)
        names = [key.name for key in [*page.api_keys, *rest.api_keys]]
        assert (names, rest.next_page_token) == (["own 2", "own 1", "own 0", "maker"], "")
        active = auth.keys("ListApiKeys", maker.key, active_only=True, owner=f"key:{maker.id}").api_keys
        assert [key.name for key in active] == ["own 2", "own 0"]
        assert auth.keys("ListApiKeys", maker.key, owner=SOMEBODY).api_keys == []
        assert len(auth.keys("ListApiKeys").api_keys) == 6
        # One that may read some others sees them beside its own.
        some = auth.create(name="some", grants=[_line("allow", "keys.read", f"keys/{own[0].id}")])
        assert {key.name for key in auth.keys("ListApiKeys", some.key).api_keys} == {"some", "own 0"}


@pytest.mark.row("S2.3")
def test_an_update_changes_what_it_names(auth: Auth) -> None:
    made = auth.create(name="before", description="old", permission_set="train", scopes=["managers/a/**"])
    named = auth.keys("UpdateApiKey", id=made.id, name="after")
    assert (named.name, named.description, named.permission_set) == ("after", "old", "train")
    blank = auth.keys("UpdateApiKey", id=made.id, description="")
    assert (blank.name, blank.description) == ("after", "")
    scoped = auth.keys("UpdateApiKey", id=made.id, scopes=["managers/b/**"])
    assert (scoped.permission_set, list(scoped.scopes)) == ("train", ["managers/b/**"])
    assert list(scoped.grants[0].resources) == ["managers/b/**"]
    other = auth.keys("UpdateApiKey", id=made.id, permission_set="predict")
    assert (other.permission_set, list(other.scopes), list(other.grants[0].resources)) == ("predict", [], ["**"])
    custom = auth.keys("UpdateApiKey", id=made.id, grants=[_line("allow", "models.read", "managers/c/**")])
    assert (custom.permission_set, list(custom.permissions), len(custom.grants)) == ("", [], 1)
    assert _refused(auth, "UpdateApiKey", id=made.id, scopes=["managers/b/**"]) == "SCOPE_INVALID"
    assert _grants(auth, made.key) == [("allow", ["models.read"], ["managers/c/**"])]
    auth.revoke(made.id)
    assert _refused(auth, "UpdateApiKey", id=made.id, name="late") == "API_KEY_REVOKED"
    assert _refused(auth, "UpdateApiKey", id="01ARZ3NDEKTSV4RRFFQ69G5FAV", name="x") == "API_KEY_NOT_FOUND"


def test_what_a_key_lost_its_tokens_lose_at_once(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="full_access")
    credential = auth.credential(made.key)
    token = auth.call(made.key, "TokenService", "CreateToken", tokens_pb2.CreateTokenRequest()).access_token
    auth.keys("UpdateApiKey", id=made.id, name="only the name")
    assert auth.accepts_token(token)
    auth.keys("UpdateApiKey", id=made.id, permission_set="read_only")
    assert not auth.accepts_token(token)
    assert credential in auth.revocations(installed)
    assert auth.credential(made.key) not in auth.revocations(installed)
    assert _refused(auth, "CreateApiKey", made.key, name="x", permission_set="read_only") == "PERMISSION_MISSING"


@pytest.mark.row("S1.9")
def test_quotas_are_kept_with_the_key_and_travel_with_it(installed: Installation) -> None:
    with installed.auth(database="quotas") as auth:
        made = auth.create(
            permission_set="full_access", quotas=[_quota("train", 10, "day"), _quota("predict", 5, "minute")]
        )
        assert [(q.usage_class, q.requests, q.per) for q in auth.get(made.id).quotas] == [
            ("predict", 5, "minute"),
            ("train", 10, "day"),
        ]
        changed = auth.keys("UpdateApiKey", id=made.id, quotas=[_quota("train", 20, "hour"), _quota("other", 9, "day")])
        assert [(q.usage_class, q.requests) for q in changed.quotas] == [("other", 9), ("predict", 5), ("train", 20)]
        cleared = auth.keys("UpdateApiKey", id=made.id, clear_quotas=True, quotas=[_quota("upload", 1, "day")])
        assert [q.usage_class for q in cleared.quotas] == ["upload"]
        # Nobody gets around a quota by another key, or by changing its own.
        child = auth.create(made.key, permission_set="full_access")
        assert [(q.usage_class, q.requests) for q in child.quotas] == [("upload", 1)]
        more = [_quota("upload", 2, "day")]
        assert (
            _refused(auth, "CreateApiKey", made.key, name="x", permission_set="train", quotas=more)
            == "QUOTA_NOT_COVERED"
        )
        for fields in ({"clear_quotas": True}, {"quotas": more}):
            assert _refused(auth, "UpdateApiKey", made.key, id=made.id, **fields) == "QUOTA_NOT_COVERED"
            assert _refused(auth, "UpdateApiKey", made.key, id=child.id, **fields) == "QUOTA_NOT_COVERED"


@pytest.mark.row("S2.3")
def test_a_key_is_extended_from_its_end_or_from_now(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only", expires_in_days=10)
    longer = auth.keys("ExtendApiKey", id=made.id, days=5)
    assert longer.expires_at.ToDatetime() - made.expires_at.ToDatetime() == timedelta(days=5)
    installed.clock.ahead = timedelta(days=20)
    try:
        assert not _works(auth, made.key)
        again = auth.keys("ExtendApiKey", id=made.id, days=1)
        left = again.expires_at.ToDatetime(tzinfo=UTC) - installed.clock()
        assert timedelta(hours=23) < left <= timedelta(days=1)
        assert _works(auth, made.key)
    finally:
        installed.clock.ahead = timedelta()
    assert _refused(auth, "ExtendApiKey", id=made.id, days=3650) == "LIFETIME_TOO_LONG"
    assert _refused(auth, "ExtendApiKey", id=made.id, days=0) == "FIELD_INVALID"
    forever = auth.create(permission_set="read_only")
    assert _refused(auth, "ExtendApiKey", id=forever.id, days=1) == "API_KEY_DOES_NOT_EXPIRE"
    auth.revoke(made.id)
    assert _refused(auth, "ExtendApiKey", id=made.id, days=1) == "API_KEY_REVOKED"


def test_a_key_that_ends_extends_neither_itself_nor_others_beyond_its_end(auth: Auth) -> None:
    ending = auth.create(permission_set="full_access", expires_in_days=10)
    child = auth.create(ending.key, permission_set="read_only", expires_in_days=5)
    assert _refused(auth, "ExtendApiKey", ending.key, id=ending.id, days=1) == "LIFETIME_NOT_COVERED"
    assert _refused(auth, "ExtendApiKey", ending.key, id=child.id, days=6) == "LIFETIME_NOT_COVERED"
    assert auth.keys("ExtendApiKey", ending.key, id=child.id, days=4).is_active
    forever = auth.create(permission_set="read_only")
    assert _refused(auth, "RotateApiKey", ending.key, id=forever.id) == "LIFETIME_NOT_COVERED"
    writer = auth.create(permissions=["keys.write"])
    assert _refused(auth, "ExtendApiKey", writer.key, id=ending.id, days=1) == "GRANT_NOT_COVERED"


@pytest.mark.row("S2.5")
def test_a_cascade_ends_whatever_was_made_with_the_key(auth: Auth) -> None:
    root = auth.create(permission_set="full_access")
    children = [auth.create(root.key, permission_set="full_access") for _ in range(2)]
    # One made through a token, one by a child that is revoked already, one that belongs to somebody else.
    grandchildren = [auth.create(child.key, permission_set="read_only", owner=SOMEBODY) for child in children]
    beside = auth.create(permission_set="read_only")
    auth.revoke(children[1].id)
    plain = auth.create(permission_set="full_access")
    plains_child = auth.create(plain.key, permission_set="read_only")
    assert not auth.keys("RevokeApiKey", id=plain.id).is_active
    assert _works(auth, plains_child.key)
    assert not auth.keys("RevokeApiKey", id=plain.id, cascade=True).is_active
    assert not _works(auth, plains_child.key)
    auth.keys("RevokeApiKey", root.key, id=root.id, cascade=True)
    assert not any(_works(auth, made.key) for made in (root, *children, *grandchildren))
    assert _works(auth, beside.key)


@pytest.mark.row("S2.5")
def test_a_key_that_ends_makes_no_other_stronger(auth: Auth) -> None:
    """Or it would live on in that one."""
    ending = auth.create(permission_set="full_access", expires_in_days=1)
    weak = auth.create(permission_set="read_only")
    assert (
        _refused(auth, "UpdateApiKey", ending.key, id=weak.id, permission_set="full_access") == "LIFETIME_NOT_COVERED"
    )
    assert auth.keys("UpdateApiKey", ending.key, id=weak.id, description="seen").description == "seen"


@pytest.mark.row("S2.5")
def test_nobody_revokes_a_key_that_may_do_more(auth: Auth) -> None:
    """Whoever may write keys could lock every administrator out."""
    weak = auth.create(permissions=["keys.read", "keys.write"], scopes=["keys/**"])
    strong = auth.create(permission_set="full_access")
    assert _refused(auth, "RevokeApiKey", weak.key, id=strong.id) == "GRANT_NOT_COVERED"
    assert _works(auth, strong.key)
    alike = auth.create(permissions=["keys.read"], scopes=["keys/**"])
    auth.keys("RevokeApiKey", weak.key, id=alike.id)
    assert not _works(auth, alike.key)


@pytest.mark.row("S1.9")
def test_who_is_limited_takes_over_no_key_of_others(auth: Auth) -> None:
    """Their use is not taken from the limit."""
    limited = auth.create(permission_set="full_access", quotas=[_quota("other", 1000, "day")])
    unlimited = auth.create(permission_set="full_access")
    assert _refused(auth, "RotateApiKey", limited.key, id=unlimited.id) == "QUOTA_NOT_COVERED"
    same = auth.create(permission_set="read_only", quotas=[_quota("other", 1000, "day")])
    assert _refused(auth, "UpdateApiKey", limited.key, id=same.id, permission_set="full_access") == "QUOTA_NOT_COVERED"
