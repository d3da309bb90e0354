"""Regenerates everything that is made from the protos: `make proto` runs this.

Writes, below `--root` (default: the repository):

- `strongroom/{options,auth,models,secrets,edge}/v1/*_pb2*.py*` and `strongroom/buf/validate/*_pb2.py*`: stubs;
- `gateway/strongroom.binpb`: the descriptor set that Envoy transcodes by;
- `build/image.binpb`: the same with comments, which `buf lint` and `buf breaking` read;
- `services/auth/pages/openapi.json`: the OpenAPI document of every REST path;
- `docs/{rest,grpc,errors}.md`: every REST path, every gRPC method and message, every reason of an error.

The validation rules' own proto, `buf/validate/validate.proto`, ships as a descriptor inside `protovalidate`;
protoc takes it from there, so that rules and engine are of one version.
"""

import argparse
import json
import os
import re
import sys
import tomllib
from importlib import resources
from pathlib import Path

import error_reference
import grpc_reference
import openapi
import reasons
import rest_reference
import yaml
from described import Contract
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

REPOSITORY = Path(__file__).resolve().parent.parent
VALIDATE = "buf/validate/validate.proto"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY)
    generate(parser.parse_args().root)


def generate(root: Path) -> None:
    """Writes stubs and descriptor sets below `root`."""
    sources = sorted(str(path.relative_to(REPOSITORY / "protos")) for path in (REPOSITORY / "protos").rglob("*.proto"))
    build = root / "build"
    for folder in (build, root / "gateway"):
        folder.mkdir(parents=True, exist_ok=True)
    validate = build / "validate.binpb"
    validate.write_bytes(_validate_descriptors())
    includes = [
        f"--proto_path={REPOSITORY / 'protos'}",
        f"--proto_path={resources.files('grpc_tools') / '_proto'}",
        f"--proto_path={_googleapis()}",
    ]
    stubs = [f"--python_out={root}", f"--grpc_python_out={root}", f"--mypy_out={root}", f"--mypy_grpc_out={root}"]
    _protoc([*includes, f"--descriptor_set_in={validate}", *stubs, *sources])
    validate_stubs = [f"--python_out={root / 'strongroom'}", f"--mypy_out={root / 'strongroom'}"]
    _protoc([f"--descriptor_set_in={validate}", *validate_stubs, VALIDATE])
    descriptor_set = [*includes, f"--descriptor_set_in={validate}", "--include_imports"]
    _protoc([*descriptor_set, f"-o{root / 'gateway' / 'strongroom.binpb'}", *sources, "google/rpc/error_details.proto"])
    _protoc([*descriptor_set, "--include_source_info", f"-o{build / 'image.binpb'}", *sources])
    _finish_packages(root / "strongroom")
    _references(root, Contract((build / "image.binpb").read_bytes()))


def _references(root: Path, contract: Contract) -> None:
    """Writes what people read, and the programs that make pages and clients of it."""
    known = reasons.catalogue(REPOSITORY)
    examples = yaml.safe_load((REPOSITORY / "protos" / "examples.yaml").read_text())
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    document = openapi.document(contract, known, examples, version)
    texts = {
        "services/auth/pages/openapi.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        "docs/rest.md": rest_reference.render(contract),
        "docs/grpc.md": grpc_reference.render(contract),
        "docs/errors.md": error_reference.render(known),
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _protoc(arguments: list[str]) -> None:
    # The mypy plugins are executables beside this interpreter, which need not be on the caller's path.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if protoc.main(["protoc", *arguments]) != 0:
        sys.exit("protoc failed; its message stands above")


def _googleapis() -> Path:
    import google.api.annotations_pb2 as annotations

    return Path(annotations.__file__).parents[2]


def _validate_descriptors() -> bytes:
    """The rules' file descriptor and those it imports, as a serialized FileDescriptorSet."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: object) -> None:
        for dependency in file.dependencies:  # type: ignore[attr-defined]
            add(dependency)
        proto = descriptor_pb2.FileDescriptorProto.FromString(file.proto.to_binary())  # type: ignore[attr-defined]
        files.setdefault(proto.name, proto)

    add(validate_pb.desc())
    return descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString()


def _finish_packages(package: Path) -> None:
    for stub in [*package.rglob("*_pb2*.py"), *package.rglob("*_pb2*.pyi")]:
        text = stub.read_text()
        text = text.replace("from buf.validate import", "from strongroom.buf.validate import")
        text = re.sub(r"(?<![\w.])import buf\.validate\.", "import strongroom.buf.validate.", text)
        text = re.sub(r"(?<![\w./])buf\.validate\.validate_pb2", "strongroom.buf.validate.validate_pb2", text)
        stub.write_text(text)
        for folder in (stub.parent, stub.parent.parent):
            (folder / "__init__.py").touch()


if __name__ == "__main__":
    main()
