"""Runs the fuzzer (https://github.com/google/atheris, on libFuzzer)."""

import argparse
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import atheris

_FOLDER = Path(__file__).parent
_CORPUS = _FOLDER / "corpus"
_FINDINGS = _FOLDER.parents[1] / "build" / "fuzz"
_TOGETHER = 600
# Longest inputs: what a format repeats need not be repeated often.
_LONGEST = 8192
_SECONDS_EACH = 10
_MEGABYTES = 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*")
    parser.add_argument("--seconds", type=int, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add inputs that reach something new to the corpus")
    options = parser.parse_args()
    logging.disable()  # a line for each form that is refused
    with atheris.instrument_imports(include=["services.models", "strongroom"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS

    names = options.target or list(TARGETS)
    seconds = options.seconds or _TOGETHER // len(names)
    failed = [name for name in names if not _run(name, TARGETS[name], seconds, keep=options.keep)]
    if failed:
        sys.exit(f"{', '.join(failed)}: what broke them is in {_FINDINGS}")


def _run(name: str, target: Callable[[bytes], None], seconds: int, *, keep: bool) -> bool:
    """One target in a process of its own, since the fuzzer ends its process: a fork, which has all instrumented."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        _fuzz(name, target, seconds, keep=keep)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _fuzz(name: str, target: Callable[[bytes], None], seconds: int, *, keep: bool) -> None:
    from tests.fuzz.seeds import seeds

    _FINDINGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, seed in enumerate(seeds()[name]):
            Path(scratch, f"seed-{number}").write_bytes(seed)
        known = _CORPUS / name
        known.mkdir(parents=True, exist_ok=True)
        # libFuzzer writes what it finds into the first folder, and leaves the others alone.
        folders = [str(known), scratch] if keep else [scratch, str(known)]
        limits = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_SECONDS_EACH}"]
        report = [f"-rss_limit_mb={_MEGABYTES}", f"-artifact_prefix={_FINDINGS}/{name}-"]
        atheris.Setup([sys.argv[0], *limits, *report, *folders], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
