"""Makes `strongroom/aio/` out of `strongroom/client/`: the same methods as coroutines. `make clients` runs this.

There is one definition of every call, the one that threads use. Here `await` and `async` are written into it where they
belong, by the places that the syntax tree tells, so that comments and docstrings stay. Whatever never waits (requests
that are put together, values that are taken apart) is imported from there, not repeated. What is marked in
`strongroom/client/marks.py` runs in a thread as it stands. mypy checks what comes out: a forgotten `await` is a type
error.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Methods of AsyncConnection that are awaited, and those that are iterated.
_AWAITED = {"call", "answer", "begin", "headers", "close"}
_ITERATED = {"answers"}
_CLIENT = '''"""The client for programs that run an event loop: `strongroom.client` with `await`.

    from strongroom import AsyncClient

    async with AsyncClient("http://127.0.0.1:8080", api_key=key) as client:
        await client.models.push("scorer", "weights.safetensors", version="v1")
        async for model in client.models.list():
            ...
        password = (await client.secrets.get("prod/db")).data["password"]

Calls use grpc.aio. What waits for disks and hashes, such as a push, runs in a thread, which ends when its task is
cancelled.
"""
'''
_MADE = "# Made from strongroom/client/{name}.py by `make clients`. Change it there.\n"
_CONNECTION = "from strongroom.aio.connection import AsyncConnection\n"
_IMPORTS = "import asyncio\nfrom collections.abc import AsyncIterator\n"

Function = ast.FunctionDef
_WAITS, _YIELDS = "waits", "yields"


@dataclass
class Module:
    """A module of the client. `kinds`: what the functions that wait become, by name; `Class.name` of a method."""

    name: str
    source: bytes
    tree: ast.Module
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def defined(self) -> set[str]:
        """The names that the module itself gives a meaning."""
        names = {node.name for node in self.tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assigned = [node for node in self.tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        stored = (one for node in assigned for one in ast.walk(node) if isinstance(one, ast.Name))
        return names | {one.id for one in stored if isinstance(one.ctx, ast.Store)}

    @property
    def made(self) -> set[str]:
        """Those of them that are made anew."""
        return {kind.partition(".")[0] for kind in self.kinds} | {
            node.name for node in self.tree.body if isinstance(node, ast.ClassDef) and _connects(node)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY)
    generate(parser.parse_args().root / "strongroom" / "aio")


def generate(target: Path) -> None:
    """Writes the modules into a folder."""
    modules = {module.name: module for module in _read()}
    while any(_learn(module, modules) for module in modules.values()):
        pass
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for module in modules.values():
        if module.made:
            path = target / f"{module.name}.py"
            path.write_text(_Writer(module, modules).text())
            written.append(str(path))
    ruff = [str(Path(sys.executable).parent / "ruff"), f"--config={REPOSITORY / 'pyproject.toml'}", "--quiet"]
    # Imports that nobody needs any more, and their order. All other rules hold for what this was made from.
    subprocess.run([*ruff[:1], "check", *ruff[1:], "--fix", "--select", "F401,I", *written], check=True)
    subprocess.run([*ruff[:1], "format", *ruff[1:], *written], check=True)


def _read() -> Iterator[Module]:
    for path in sorted((REPOSITORY / "strongroom" / "client").glob("*.py")):
        source = path.read_bytes()
        yield Module(path.stem, source, ast.parse(source))


def _functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Every function and method with its name, `Class.name` of a method."""
    for node in module.tree.body:
        if isinstance(node, Function):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one) for one in node.body if isinstance(one, Function))


def _learn(module: Module, modules: Mapping[str, Module]) -> bool:
    """Finds functions that wait, as far as it is known which others do. Whether it found one."""
    found = False
    for name, function in _functions(module):
        if name in module.kinds:
            continue
        known = _Known(module, modules, name)
        waits = _threaded(module, name, function) or any(
            known.kind(node) is not None for node in ast.walk(function) if isinstance(node, ast.Call)
        )
        if waits:
            yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function))
            module.kinds[name] = _YIELDS if yields and not _mark(module, name, function) else _WAITS
            found = True
    return found


def _connects(node: ast.ClassDef) -> bool:
    return any(isinstance(one, Function) and _is_init(one) and _takes_connection(one) for one in node.body)


def _is_init(function: Function) -> bool:
    return function.name == "__init__"


def _takes_connection(function: Function) -> bool:
    return any(isinstance(one.annotation, ast.Name) and one.annotation.id == "Connection" for one in function.args.args)


def _threaded(module: Module, name: str, function: Function) -> bool:
    return bool(_mark(module, name, function)) and not function.name.startswith("_")


def _mark(module: Module, name: str, function: Function) -> str:
    """`transfer`, `blocking` or nothing: of the function, or of its class."""
    owners = [one for one in module.tree.body if isinstance(one, ast.ClassDef) and name.startswith(f"{one.name}.")]
    marks = [mark for one in (function, *owners) for mark in one.decorator_list]
    return next((one.id for one in marks if isinstance(one, ast.Name) and one.id in ("transfer", "blocking")), "")


class _Known:
    """What calls inside of one function become."""

    def __init__(self, module: Module, modules: Mapping[str, Module], name: str) -> None:
        self._own = module.kinds
        self._class = name.rpartition(".")[0]
        self._imported: dict[str, str] = {}
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("strongroom.client."):
                kinds = modules[node.module.rpartition(".")[2]].kinds
                self._imported |= {one.asname or one.name: kinds[one.name] for one in node.names if one.name in kinds}

    def kind(self, call: ast.Call) -> str | None:
        """`waits`, `yields` or None."""
        match call.func:
            case ast.Name(id=name):
                return self._own.get(name) or self._imported.get(name)
            case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
                return _WAITS
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return self._own.get(f"{self._class}.{name}")
            case ast.Attribute(value=ast.Attribute(attr="_connection") | ast.Name(id="connection"), attr=name):
                return _WAITS if name in _AWAITED else _YIELDS if name in _ITERATED else None
        return None


class _Writer:
    """Writes the asynchronous module of a module."""

    def __init__(self, module: Module, modules: Mapping[str, Module]) -> None:
        self._module = module
        self._modules = modules
        starts = [0]
        for line in module.source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self._edits: list[tuple[int, int, str]] = []

    def text(self) -> str:
        """The whole module, not formatted yet."""
        module, main = self._module, self._module.name == "__init__"
        first, *rest = module.tree.body
        docstring = _CLIENT if main else self._source(first) + "\n"
        parts = [docstring, _MADE.format(name=module.name), "\n", "" if main else _IMPORTS, _CONNECTION]
        for node in rest:
            if isinstance(node, ast.Import):
                parts.append(self._source(node) + "\n")
            elif isinstance(node, ast.ImportFrom):
                parts.append(self._import(node))
        kept = sorted(module.defined - module.made)
        if kept and not main:
            parts.append(f"from strongroom.client.{module.name} import {', '.join(kept)}\n")
        if any(_mark(module, name, function) for name, function in _functions(module)):
            parts.append(f"from strongroom.client import {module.name} as blocking\n")
        for node in rest:
            if isinstance(node, ast.ClassDef | Function) and node.name in module.made:
                parts.append("\n\n" + self._definition(node))
            elif isinstance(node, ast.If):
                parts.append("\n\n" + self._source(node))
        text = "".join(parts)
        text = re.sub(r"\bgrpc\.(Unary|Stream)", r"grpc.aio.\1", text)
        if main:
            text = re.sub(r"\bClient\b(?!`)", "AsyncClient", text)
            text = text.replace("Safe to use from several threads; close it", "Tasks share it; close it")
        return text

    def _import(self, node: ast.ImportFrom) -> str:
        """The import, with what is made anew taken from where it is made."""
        if node.module == "strongroom.connection":
            names = [one.name for one in node.names if one.name != "Connection"]
            return f"from strongroom.connection import {', '.join(names)}\n" if names else ""
        if node.module == "strongroom.client.marks":
            return ""
        if not (node.module or "").startswith("strongroom.client."):
            return self._source(node) + "\n"
        name = str(node.module).rpartition(".")[2]
        made = self._modules[name].made
        lines = (
            f"from strongroom.{'aio' if one.name in made else 'client'}.{name} import {one.name}\n"
            for one in node.names
        )
        return "".join(lines)

    def _definition(self, node: ast.ClassDef | Function) -> str:
        self._edits = []
        inside = {id(one) for one in ast.walk(node)}
        for name, function in _functions(self._module):
            if id(function) not in inside:
                continue
            if _mark(self._module, name, function):
                self._delegate(name, function)
            else:
                self._awaits(name, function)
        if isinstance(node, ast.ClassDef):
            self._hold_blocking(node)
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and one.id == "Connection":
                self._replace(self._start(one), self._end(one), "AsyncConnection")
        return self._edited(self._start(node), self._end(node)) + "\n"

    def _awaits(self, name: str, function: Function) -> None:
        """Writes `async` and `await` into a function."""
        kind = self._module.kinds.get(name)
        start = self._start(function)
        if function.name in ("__enter__", "__exit__"):
            at = self._module.source.index(function.name.encode(), start)
            self._replace(at + 2, at + 2, "a")
            kind = _WAITS
        if kind is None:
            return
        self._replace(start, start, "async ")
        if kind == _YIELDS and function.returns is not None:
            self._replace(self._start(function.returns), self._start(function.returns), "Async")
        known = _Known(self._module, self._modules, name)
        asked = {one for one in ast.walk(function) if isinstance(one, ast.Call) and known.kind(one)}
        streams = {one for one in asked if known.kind(one) == _YIELDS}
        held = {
            target.id
            for one in ast.walk(function)
            if isinstance(one, ast.Assign) and one.value in streams
            for target in one.targets
            if isinstance(target, ast.Name)
        }
        parents = {child: parent for parent in ast.walk(function) for child in ast.iter_child_nodes(parent)}

        def flows(node: ast.expr) -> bool:
            return node in streams or (isinstance(node, ast.Name) and node.id in held)

        for call in asked - streams:
            self._await(call, parents[call])
        for one in ast.walk(function):
            match one:
                case ast.For(iter=items) if flows(items):
                    self._replace(self._start(one), self._start(one), "async ")
                case ast.comprehension(target=target, iter=items) if flows(items):
                    at = self._module.source.rindex(b"for", 0, self._start(target))
                    self._replace(at, at, "async ")
                case ast.YieldFrom(value=items):
                    self._each(one, items, "async " if flows(items) else "")
                case ast.Call(func=ast.Name(id="list"), args=[items]) if flows(items):
                    self._replace(self._start(one), self._start(items), "[each async for each in ")
                    self._replace(self._end(items), self._end(one), "]")

    def _await(self, call: ast.Call, parent: ast.AST) -> None:
        if ast.unparse(call.func) == "time.sleep":
            self._replace(self._start(call.func), self._end(call.func), "asyncio.sleep")
        inside = isinstance(parent, ast.Attribute | ast.Subscript)
        self._replace(self._start(call), self._start(call), "(await " if inside else "await ")
        if inside:
            self._replace(self._end(call), self._end(call), ")")

    def _each(self, node: ast.YieldFrom, items: ast.expr, kind: str) -> None:
        """`yield from`, which coroutines lack."""
        self._replace(self._start(node), self._start(items), f"{kind}for each in ")
        indent = " " * (node.col_offset + 4)
        self._replace(self._end(items), self._end(node), f":\n{indent}yield each")

    def _delegate(self, name: str, function: Function) -> None:
        """Has a thread do what the function says, which stays where it is."""
        if function.name.startswith("_"):
            if not _is_init(function):
                self._drop(function)
            return
        for mark in function.decorator_list:
            self._replace(self._start(mark) - 1, self._start(function), "")
        self._replace(self._start(function), self._start(function), "async ")
        body = function.body[1:] if ast.get_docstring(function) else function.body
        arguments = ", ".join(_passed(function))
        if _mark(self._module, name, function) == "transfer":
            owner = name.partition(".")[0]
            work = f"transferred(lambda connection: blocking.{owner}(connection).{function.name}({arguments}))"
        else:
            work = f"in_thread(lambda: self._blocking.{function.name}({arguments}))"
        self._replace(self._start(body[0]), self._end(body[-1]), f"return await self._connection.{work}")

    def _hold_blocking(self, node: ast.ClassDef) -> None:
        """Gives the class the one it delegates to, if it delegates to one that all calls share."""
        functions = [one for one in node.body if isinstance(one, Function)]
        if not any(_mark(self._module, f"{node.name}.{one.name}", one) == "blocking" for one in functions):
            return
        init = next(one for one in functions if _is_init(one))
        passed = [one.replace("connection", "connection.blocking") for one in _passed(init)]
        line = f"self._blocking = blocking.{node.name}({', '.join(passed)})"
        first, last = init.body[0], init.body[-1]
        if node.decorator_list:
            for mark in node.decorator_list:
                self._replace(self._start(mark) - 1, self._start(node), "")
            self._replace(self._start(first), self._end(last), f"self._connection = connection\n        {line}")
        else:
            self._replace(self._end(last), self._end(last), f"\n        {line}")

    def _drop(self, function: Function) -> None:
        self._replace(self._start(function), self._end(function), "")

    def _replace(self, start: int, end: int, text: str) -> None:
        self._edits.append((start, end, text))

    def _edited(self, start: int, end: int) -> str:
        source, out, at = self._module.source, [], start
        # In the order of the text; of those at one place what is put in goes before what is replaced.
        for begin, finish, text in sorted(self._edits, key=lambda edit: edit[:2]):
            if begin < at:
                continue  # inside of what was replaced
            out += [source[at:begin].decode(), text]
            at = finish
        return "".join([*out, source[at:end].decode()])

    def _source(self, node: ast.stmt) -> str:
        return self._module.source[self._start(node) : self._end(node)].decode()

    def _start(self, node: ast.stmt | ast.expr) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.stmt | ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset


def _passed(function: Function) -> list[str]:
    """The parameters, as arguments for a function with the same ones."""
    spec = function.args
    positional = [one.arg for one in spec.args if one.arg != "self"]
    starred = [f"*{spec.vararg.arg}"] if spec.vararg else []
    named = [f"{one.arg}={one.arg}" for one in spec.kwonlyargs]
    # Reports of progress belong into the event loop, where whoever asked for them is.
    return [*positional, *starred, *(one.replace("=progress", "=self._connection.here(progress)") for one in named)]


if __name__ == "__main__":
    main()
