"""The fuzzer's corpus, replayed, and the fuzzer itself for a few seconds a target (`python -m tests.fuzz` for long)."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
SECONDS = 1


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_the_fuzzer_ever_found_breaks_a_reader(name: str) -> None:
    kept = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert kept
    for data in kept:
        TARGETS[name](data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_fuzzer_starts_from_what_a_writer_writes(name: str) -> None:
    """Also seeds cut short and with each of their bytes changed, wherever there is no fuzzer."""
    for seed in seeds()[name]:
        TARGETS[name](seed)
        for at in _places(seed):
            TARGETS[name](seed[:at])
            TARGETS[name](seed[:at] + bytes([seed[at] ^ 0xFF]) + seed[at + 1 :])


def _places(seed: bytes) -> list[int]:
    """Every place, but not those deep in a run of one byte: the thousandth digit is as the hundredth."""
    return [at for at in range(len(seed)) if len(set(seed[max(at - 32, 0) : at + 33])) > 1]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this platform")
def test_fuzzing_finds_nothing() -> None:
    """All targets in one run: what they read is instrumented once."""
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stderr.count("Done ") == len(TARGETS), ran.stderr[-4000:]
