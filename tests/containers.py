"""The containers of docker-compose.yml as processes of this machine: the same command lines, variables and files.

What Compose resolves is taken as it is; then names of hosts become loopback addresses, ports free ones, and paths those
of a folder in which each container has the secrets, configurations and volumes that it mounts, and no others.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.stack import free_port

ROOT = Path(__file__).resolve().parent.parent
_BIN = Path(sys.executable).parent
# The program itself: the script that the package puts beside Python always succeeds.
COMPOSE = Path(str(find_spec("compose").origin)).with_name("docker-compose")
_ADDRESS = re.compile(r"\b(auth|models|secrets|postgres|s3|openbao|0\.0\.0\.0|127\.0\.0\.1):(\d{4,5})\b")
# Where containers have files. What stands behind a letter is another path.
_PLACE = re.compile(r"(?<![\w.-])/(run/secrets|run/pki|etc|openbao/file|var/lib/strongroom|data|authority|parts)\b")
_PORT = re.compile(r"(?<=\.port=)([1-9]\d{3})\b")


def resolved(**environment: str) -> dict[str, Any]:
    """docker-compose.yml as Docker Compose itself reads it, checked against its schema. Raises CalledProcessError."""
    command = [COMPOSE, "--project-directory", ROOT, "--profile", "*", "config", "--format", "json"]
    variables = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | environment
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables, cwd=ROOT)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def entrypoint() -> list[str]:
    """What the image runs."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    return command


@dataclass
class Containers:
    """`folder` has a folder for each container; `secrets` is where the secrets were made."""

    document: Mapping[str, Any]
    folder: Path
    secrets: Path
    ports: dict[tuple[str, str], int] = field(default_factory=dict)

    def port(self, service: str, number: str) -> int:
        """The port here of what is that port of a container's."""
        key = (service, number)
        while key not in self.ports:
            # SeaweedFS has its gRPC ports 10000 above the others.
            if (port := free_port()) < 55_000 and port not in self.ports.values():
                self.ports[key] = port
        return self.ports[key]

    def taken(self, service: str, number: str, port: int) -> None:
        """Another port was chosen for this one."""
        self.ports[service, number] = port

    def local(self, service: str, text: str) -> str:
        """A text of the container's as it is here."""

        def address(found: re.Match[str]) -> str:
            host, number = found[1], found[2]
            if host in ("0.0.0.0", "127.0.0.1"):
                return f"127.0.0.1:{self.port(service, number)}"
            # A certificate names it.
            return f"{'localhost' if host == 'openbao' else '127.0.0.1'}:{self.port(host, number)}"

        text = _ADDRESS.sub(address, text)
        text = _PORT.sub(lambda found: str(self.port(service, found[1])), text)
        text = text.replace("-ip=s3", "-ip=127.0.0.1").replace("-ip.bind=0.0.0.0", "-ip.bind=127.0.0.1")
        return _PLACE.sub(lambda found: f"{self.home(service)}{found[0]}", text)

    def is_ours(self, service: str) -> bool:
        image: str = self.document["services"][service]["image"]
        return image.startswith("strongroom:")

    def home(self, service: str) -> Path:
        return self.folder / service

    def prepare(self, service: str) -> None:
        """Makes the folder of a container: what it mounts, and nothing else."""
        found, home = self.document["services"][service], self.home(service)
        if home.exists():
            return
        (home / "run" / "secrets").mkdir(parents=True)
        for volume in found.get("volumes", ()):
            kept, target = self.folder / "volumes" / volume["source"], home / volume["target"].lstrip("/")
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(kept)
        for secret in found.get("secrets", ()):
            target = secret.get("target") or secret["source"]
            if not target.startswith("/") or target.startswith("/run/secrets/"):
                source = Path(self.document["secrets"][secret["source"]]["file"]).name
                shutil.copy2(self.secrets / source, home / "run" / "secrets" / Path(target).name)
        for config in found.get("configs", ()):
            source = Path(self.document["configs"][config["source"]]["file"])
            target = home / config["target"].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.local(service, source.read_text()))

    def command(self, service: str) -> list[str]:
        """Its exact command line, here."""
        found = self.document["services"][service]
        words = [*(found.get("entrypoint") or entrypoint()), *found["command"]]
        return self._here(service, words)

    def check(self, service: str) -> list[str]:
        """The command line of its health check, here."""
        test = self.document["services"][service]["healthcheck"]["test"]
        assert test[0] == "CMD"
        return self._here(service, test[1:])

    def _here(self, service: str, words: list[str]) -> list[str]:
        program = _BIN / words[0]
        return [str(program) if program.exists() else words[0], *(self.local(service, word) for word in words[1:])]

    def environment(self, service: str) -> dict[str, str]:
        """Its variables, here; nothing of the tests'."""
        found = self.document["services"][service].get("environment", {})
        values = {name: self.local(service, value) for name, value in found.items() if value is not None}
        if port := values.get("STRONGROOM_GATEWAY_PORT"):
            values |= {"STRONGROOM_GATEWAY_PORT": str(self.port(service, port)), "STRONGROOM_GATEWAY_HOST": "127.0.0.1"}
        # The image's own.
        values |= {"STRONGROOM_DATA_DIR": str(self.home(service) / "var/lib/strongroom"), "PYTHONSAFEPATH": "1"}
        return values | {"PATH": f"{_BIN}:{os.environ['PATH']}", "HOME": str(self.home(service))}

    @contextmanager
    def running(self, service: str) -> Iterator[subprocess.Popen[bytes]]:
        """The container's process, while the block runs."""
        self.prepare(service)
        with (self.folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(service),
                env=self.environment(service),
                cwd=self.home(service),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            # Others have nothing here that has to survive, and take long to say goodbye.
            process.terminate() if self.is_ours(service) else process.kill()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def healthy(self, service: str) -> bool:
        """What its health check says."""
        done = subprocess.run(
            self.check(service),
            env=self.environment(service),
            cwd=self.home(service),
            capture_output=True,
            check=False,
            timeout=30,
        )
        return done.returncode == 0

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")[-3000:]
