"""Every reason an error of the product may carry, read from where the errors stand: `services/` and the gateway's Lua.

A reason is a class's `reason = "…"` or the `reason="…"` of a call that makes an error; it has the code of the class.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.shared.status import CODES

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, as the transcoder maps them.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_ROOTS = {cls.__name__: code.name for cls, code in CODES.items()}
_CODE_OF_STATUS = {status: code for code, status in reversed(HTTP_STATUS.items())}
_GRPC = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class Reason:
    """Why a request failed.

    `code` is empty for what only the gateway says, over REST alone. `says` is a sentence in which `…` stands for names.
    """

    name: str
    status: int
    code: str
    says: str


def catalogue(root: Path) -> dict[str, Reason]:
    """All reasons by name, from the repository at `root`."""
    found: dict[str, Reason] = {}
    for reason in [*_of_services(root / "services"), *_of_gateway(root / "gateway" / "lua")]:
        known = found.get(reason.name)
        # Several places may give one reason: the first that says more than nothing stands for them.
        if known is None or (reason.says and not known.says):
            found[reason.name] = reason
    return dict(sorted(found.items()))


def _of_services(folder: Path) -> Iterator[Reason]:
    modules = [ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))]
    classes = {node.name: node for module in modules for node in ast.walk(module) if isinstance(node, ast.ClassDef)}
    sentences = {name: says for module in modules for name, says in _raised(module)}
    for name, node in classes.items():
        own = [_text(item.value) for item in node.body if isinstance(item, ast.Assign) and _names(item, "reason")]
        if own and (code := _code(name, classes)):
            says = _in_init(node) or ast.get_docstring(node) or sentences.get(name, "")
            yield _reason(own[0], code, says)
    for module in modules:
        for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            given = [_text(keyword.value) for keyword in call.keywords if keyword.arg == "reason"]
            code = _code(_called(call), classes)
            if given and given[0] and code:
                yield _reason(given[0], code, _text(call.args[0]) if call.args else "")


def _of_gateway(folder: Path) -> Iterator[Reason]:
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.lua")))
    codes = _CODE_OF_STATUS | _codes_of_gateway(text)
    for status, name, says in re.findall(r'\[(\d+)\] = \{"([A-Z_]+)", "([^"]+)"\}', text):
        yield Reason(name, int(status), codes.get(int(status), ""), says)
    for status, name, says in re.findall(r'request\.refuse\(handle, (\d+), "([A-Z_]+)", ("[^"]*"|detail)', text):
        yield Reason(name, int(status), codes.get(int(status), ""), says.strip('"').replace("detail", ""))


def _codes_of_gateway(text: str) -> dict[int, str]:
    """What it says over gRPC of what it refuses itself."""
    [table] = re.findall(r"^local CODE_OF_STATUS = \{(.*)\}$", text, re.MULTILINE)
    return {int(status): _GRPC[int(code)] for status, code in re.findall(r"\[(\d+)\] = (\d+)", table)}


def _reason(name: str, code: str, says: str) -> Reason:
    return Reason(name, 412 if name == "ETAG_MISMATCH" else HTTP_STATUS[code], code, says.split("\n\n")[0])


def _code(name: str, classes: dict[str, ast.ClassDef]) -> str:
    """The code of an error class; empty for what is no error of ours."""
    while name in classes and name not in _ROOTS:
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
        name = bases[0] if bases else ""
    return _ROOTS.get(name, "")


def _raised(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Class and sentence of every error that is raised with its own reason."""
    for node in ast.walk(module):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            yield _called(node.exc), _text(node.exc.args[0])


def _in_init(node: ast.ClassDef) -> str:
    """The sentence that a class gives its errors itself."""
    for call in (item for item in ast.walk(node) if isinstance(item, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__" and call.args:
            return _text(call.args[0])
    return ""


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _names(item: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in item.targets)


def _text(node: ast.expr) -> str:
    """A literal's text, with `…` for what is filled in; empty if the text is not there to read."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""
