"""The scripts and styles of others that the documentation pages load, as `vendored.json` pins them.

`python -m tests.page_assets` takes them anew from the npm registry: set another version there, run it, run the tests.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.node import NPM

PAGES = Path(__file__).resolve().parent.parent / "services" / "auth" / "pages"
PINS = PAGES / "vendored.json"


def pins() -> dict[str, Any]:
    """By package: version, license, digest of the package, and its files by the names they have here."""
    return json.loads(PINS.read_text())


def digest(name: str) -> str:
    """SHA-256 of the asset as it stands here, hexadecimal."""
    return hashlib.sha256((PAGES / "assets" / name).read_bytes()).hexdigest()


def _fetch(package: str, version: str, folder: Path) -> Path:
    command = [*NPM, "pack", "--silent", f"{package}@{version}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return next(folder.glob("*.tgz"))


def main() -> None:
    pinned = pins()
    for package, pin in pinned.items():
        with tempfile.TemporaryDirectory() as name:
            archive = _fetch(package, pin["version"], Path(name))
            pin["integrity"] = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            with tarfile.open(archive) as files:
                for own, file in pin["files"].items():
                    source = files.extractfile(f"package/{file['from']}")
                    assert source is not None
                    (PAGES / "assets" / own).write_bytes(source.read())
                    file["sha256"] = digest(own)
    PINS.write_text(json.dumps(pinned, indent=2) + "\n")


if __name__ == "__main__":
    main()
