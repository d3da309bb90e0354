"""Fuzzing of everything that reads bytes which others wrote.

    python -m tests.fuzz                       every target, ten minutes together
    python -m tests.fuzz manifest --seconds 60

`targets.py` has the readers and what must hold of them, `corpus/` the inputs that reached something new, which
`tests/test_fuzz.py` replays. What breaks a target is written to `build/fuzz/` and named: keep it in the corpus.
"""
