"""The contract: every method says who may call it and how REST reaches it; what is generated is what is committed."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from clients import make_typescript
from strongroom.options.v1 import options_pb2

REPOSITORY = Path(__file__).resolve().parent.parent


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString((REPOSITORY / "gateway" / "strongroom.binpb").read_bytes())


def all_methods() -> list[MethodDescriptor]:
    """Every method of every service of ours, from the descriptor set that the gateway uses."""
    pool = descriptor_pool.DescriptorPool()
    names = []
    for file in descriptor_set().file:
        pool.Add(file)
        if file.package.startswith("strongroom."):
            names += [f"{file.package}.{service.name}" for service in file.service]
    # The default pool knows our options; a fresh one leaves them unread.
    default = descriptor_pool.Default()
    return [method for name in names for method in default.FindServiceByName(name).methods]


def _ids(method: MethodDescriptor) -> str:
    return method.full_name.removeprefix("strongroom.")


def _import_stubs() -> None:
    for stub in (REPOSITORY / "strongroom").glob("*/v1/*_pb2.py"):
        __import__(".".join(stub.relative_to(REPOSITORY).with_suffix("").parts))


_import_stubs()
METHODS = all_methods()


def test_there_are_methods_to_check() -> None:
    assert len(METHODS) > 25


@pytest.mark.parametrize("method", METHODS, ids=_ids)
def test_every_method_has_an_access_rule(method: MethodDescriptor) -> None:
    rules = method.GetOptions().Extensions[options_pb2.access]
    assert rules, f"{method.full_name} lacks option (strongroom.options.v1.access)"
    assert not all(rule.when for rule in rules), f"{method.full_name}: some rule must count for every request"
    for rule in rules:
        kinds = [bool(rule.permission), rule.public, rule.authenticated, bool(rule.services)]
        assert kinds.count(True) == 1, f"{method.full_name}: a rule is exactly one of permission, public, … : {rule}"
        if rule.permission:
            assert bool(rule.resource) != rule.filtered, (
                f"{method.full_name}: a permission needs a resource or `filtered`"
            )


@pytest.mark.parametrize("method", METHODS, ids=_ids)
def test_every_field_that_a_rule_names_exists(method: MethodDescriptor) -> None:
    for rule in method.GetOptions().Extensions[options_pb2.access]:
        for path in [*re.findall(r"\{([^}]*)\}", rule.resource), *filter(None, [rule.when])]:
            message = method.input_type
            for name in path.split("."):
                assert name in message.fields_by_name, f"{method.full_name}: no field {path}"
                message = message.fields_by_name[name].message_type


@pytest.mark.parametrize("method", METHODS, ids=_ids)
def test_every_method_has_an_http_binding_or_says_why_not(method: MethodDescriptor) -> None:
    options = method.GetOptions()
    bound = options.HasExtension(annotations_pb2.http)
    reason = options.Extensions[options_pb2.no_http]
    assert bound != bool(reason), f"{method.full_name} needs google.api.http or option no_http, not both"


@pytest.mark.parametrize("method", METHODS, ids=_ids)
def test_http_paths_do_not_end_in_a_slash(method: MethodDescriptor) -> None:
    """Envoy refuses such templates at start."""
    http = method.GetOptions().Extensions[annotations_pb2.http]
    path = getattr(http, http.WhichOneof("pattern") or "get")
    assert path == "/" or not path.endswith("/")


def test_every_element_of_the_contract_has_a_comment() -> None:
    """Proto comments are the manual: services, methods and messages that a caller meets say what they are."""
    undocumented = []
    for proto in (REPOSITORY / "protos").rglob("*.proto"):
        lines = proto.read_text().splitlines()
        for previous, line in pairwise(lines):
            named = re.match(r"\s*(service|rpc) (\w+)", line)
            if named and not previous.strip().startswith("//"):
                undocumented.append(f"{proto.name}: {named.group(2)}")
    assert undocumented == []


@pytest.mark.slow
def test_generated_files_are_up_to_date(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "protos" / "generate.py"), "--root", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    typescript = Path("clients", "typescript", "src", "gen")
    make_typescript.generate(tmp_path / "build" / "image.binpb", tmp_path / typescript)
    generated = {
        path.relative_to(tmp_path): path.read_bytes()
        for folder in ("strongroom", "gateway", "docs", "services", typescript)
        for path in (tmp_path / folder).rglob("*")
        if path.is_file() and path.name != "__init__.py"
    }
    assert len(generated) > 40
    stale = [str(path) for path, content in generated.items() if (REPOSITORY / path).read_bytes() != content]
    assert stale == [], "run: make clients"
