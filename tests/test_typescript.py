"""The TypeScript client, compiled and run on Node as its users do, against the gateway."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clients import make_typescript
from tests.stack import Stack

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples"
TESTS = REPOSITORY / "tests" / "typescript"
SETTINGS = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "target": "es2023",
    "module": "nodenext",
    "erasableSyntaxOnly": True,
    "noEmit": True,
    "types": ["node"],
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a program's own, in which the package is installed."""
    folder = tmp_path_factory.mktemp("typescript")
    modules = make_typescript.installed() / "node_modules"
    package = folder / "strongroom"
    left_out = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(make_typescript.PACKAGE, package, ignore=left_out)
    (package / "node_modules").symlink_to(modules)
    compiler = modules / "typescript" / "bin" / "tsc"
    make_typescript.node([compiler, "--project", "."], package)
    shutil.copytree(package / "src" / "gen", package / "dist" / "gen")
    program = folder / "program"
    (program / "node_modules").mkdir(parents=True)
    (program / "node_modules" / "strongroom").symlink_to(package)
    for name in ("@bufbuild", "@connectrpc", "@types", "undici-types"):
        (program / "node_modules" / name).symlink_to(modules / name)
    (program / "package.json").write_text('{"type": "module"}')
    for path in (*TESTS.glob("*.ts"), EXAMPLES / "client.ts", EXAMPLES / "client.js"):
        shutil.copy(path, program)
    [shown] = re.findall(
        r"^```ts\n(.*?)^```$", (REPOSITORY / "docs" / "clients.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (program / "shown.ts").write_text(shown)
    (program / "tsconfig.json").write_text(json.dumps({"compilerOptions": SETTINGS, "include": ["*.ts"]}))
    return program


@pytest.fixture
def environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_URL", stack.url)
    monkeypatch.setenv("STRONGROOM_API_KEY", stack.admin_key)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def run(program: Path, *arguments: str) -> str:
    try:
        return make_typescript.node(arguments, program, seconds=120).decode()
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{error.stdout.decode()}\n{error.stderr.decode()}") from None


@pytest.mark.row("S3.11")
def test_programs_that_use_it_are_checked_against_its_types(program: Path) -> None:
    compiler = make_typescript.installed() / "node_modules" / "typescript" / "bin" / "tsc"
    run(program, str(compiler), "--project", ".")
    (program / "wrong.ts").write_text(
        'import { Strongroom } from "strongroom";\nawait new Strongroom().secrets.getSecret({ nam: "prod/db" });\n'
    )
    with pytest.raises(AssertionError, match=r"'nam' does not exist"):
        run(program, str(compiler), "--project", ".")
    (program / "wrong.ts").unlink()


@pytest.mark.row("S3.11")
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", sorted(path.name for path in TESTS.glob("*.test.ts")))
def test_on_node(program: Path, name: str) -> None:
    out = run(program, "--test", "--test-reporter=tap", name)
    assert re.search(r"^# fail 0$", out, re.MULTILINE), out
    assert re.search(r"^# pass [6-9]$", out, re.MULTILINE), out


@pytest.mark.row("S3.11")
@pytest.mark.usefixtures("environment")
def test_the_example_in_typescript(program: Path) -> None:
    out = run(program, "client.ts")
    assert re.search(
        r"^this is .+\nversion \d+ of the secret has password\n3000000 bytes came back\nexample-ts is there\n$", out
    ), out


@pytest.mark.row("S3.11")
@pytest.mark.usefixtures("environment")
def test_the_example_in_javascript_over_rest(program: Path) -> None:
    out = run(program, "client.js")
    assert re.search(
        r"^this is .+\nversion \d+ of the secret has password\n(some|no) models\nSECRET_NOT_FOUND: .+\n$", out
    ), out


@pytest.mark.row("S3.11")
def test_the_example_with_curl(stack: Stack) -> None:
    environment = os.environ | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    command = ["bash", str(EXAMPLES / "client.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nthe same bytes came back\n" in done.stdout
    assert '"reason":"SECRET_NOT_FOUND"' in done.stdout.replace(": ", ":")
    assert done.stdout.endswith("\n404\n")
    assert stack.admin_key not in done.stdout + done.stderr


@pytest.mark.row("S3.11")
def test_the_package_has_what_its_users_need_and_no_more(program: Path) -> None:
    package = json.loads((make_typescript.PACKAGE / "package.json").read_text())
    assert package["files"] == ["dist"]
    assert {name for name, version in package["dependencies"].items() if not version[0].isdigit()} == set()
    lock = (make_typescript.PACKAGE / "package-lock.json").read_text()
    assert lock.count('"integrity"') == lock.count('"node_modules/')
    # The contract without the rules that servers keep to.
    generated = (program.parent / "strongroom" / "src" / "gen").rglob("*.js")
    assert not [path for path in generated if re.search("buf/validate|strongroom/options", path.read_text())]
