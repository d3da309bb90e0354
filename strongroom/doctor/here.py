"""What can be seen in a data directory of this machine, also while nothing runs."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from strongroom.doctor.findings import Finding, failure, ok, warning
from strongroom.local.layout import Layout
from strongroom.local.process import start_time
from strongroom.local.state import State

# Less is a warning, and a tenth of it a failure.
_FREE_BYTES = 5 << 30
# Each connection and each open pack takes one.
_OPEN_FILES = 4096
# Of the end of a log.
_LOG_BYTES = 256 << 10
_PARTS = ("auth", "models", "secrets", "gateway")


def look(data_dir: Path) -> Iterator[Finding]:
    """What there is to say about a data directory of `strongroom up`."""
    layout = Layout(data_dir.absolute())
    yield from _private(layout)
    yield from _root_key(layout)
    yield from _certificates(layout)
    yield _room(layout.root)
    yield from _processes(layout)
    yield _limits()


def _private(layout: Layout) -> Iterator[Finding]:
    """Whoever else may read a key has it."""
    open_ = [path for path in _kept(layout.root) if _is_open(path)]
    if open_:
        named = ", ".join(str(path) for path in open_[:5])
        advice = f"chmod -R go-rwx {layout.root}; who could read a key may have it: rotate it."
        yield failure("data directory", f"others may read {named}", advice)
    else:
        yield ok("data directory", f"{layout.root} is its owner's alone")


def _is_open(path: Path) -> bool:
    with suppress(FileNotFoundError):  # what runs makes files and removes them
        return bool(path.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return False


def _kept(root: Path) -> Iterator[Path]:
    yield root
    found: list[Path] = []
    with suppress(FileNotFoundError):
        found = sorted(root.iterdir())
    for path in found:
        # Packs are encrypted, and too many; their folder is closed.
        if path.is_dir() and path.name != "weights":
            yield from _kept(path)
        elif not path.is_socket():
            yield path


def _root_key(layout: Layout) -> Iterator[Finding]:
    if layout.root_key.exists() or layout.kms.exists():
        return
    if layout.databases.is_dir() and layout.used:
        advice = "Put it back from your backup: without it nothing here can be opened."
        yield failure("root key", f"{layout.root_key} is missing", advice)


def _certificates(layout: Layout) -> Iterator[Finding]:
    from strongroom.certificates import CertificateError
    from strongroom.local.pki import Pki

    pki = Pki(layout.pki)
    if not pki.exists:
        return
    advice = f"strongroom pki rotate --data-dir {layout.root}"
    try:
        shown = pki.show()
    except CertificateError as error:
        yield failure("certificates", str(error), "Put it back from your backup, or begin anew: strongroom pki init")
        return
    bad = [f"that of {one.holder} is {one.note}" for one in shown if one.note]
    if bad:
        yield failure("certificates", "; ".join(bad), advice)
    else:
        yield ok("certificates", f"all are good until {min(one.expires for one in shown):%Y-%m-%d}")


def _room(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    shown = f"{free / (1 << 30):.1f} GiB are free"
    advice = "Make room: strongroom admin gc frees what was deleted."
    if free < _FREE_BYTES // 10:
        return failure("disk", shown, advice)
    return warning("disk", shown, advice) if free < _FREE_BYTES else ok("disk", shown)


def _processes(layout: Layout) -> Iterator[Finding]:
    try:
        state = State(**json.loads(layout.state.read_text()))
    except (OSError, ValueError, TypeError):
        yield warning("processes", f"nothing runs on {layout.root}", f"strongroom up --data-dir {layout.root}")
        return
    if not _runs(state.supervisor):
        advice = f"Start it again: strongroom up --data-dir {layout.root}"
        yield failure("processes", "`strongroom up` was killed", advice)
        return
    if state.overheard:
        advice = "strongroom pki init, see docs/tls.md; STRONGROOM_TLS=off if something in front of it speaks TLS."
        yield warning("network", f"{state.overheard} is served without TLS: anyone on the way can read keys", advice)
    for part in _PARTS:
        pid = state.pids.get(part)
        if pid is None or start_time(pid) != state.started.get(part):
            log = layout.logs / f"{part}.log"
            reason = _last_trouble(log)
            yield failure(part, f"it does not run{reason and ': '}{reason}", f"It is started again; {log} says more.")
        else:
            yield ok(part, f"runs as process {pid}")


def _runs(pid: int) -> bool:
    return start_time(pid) is not None


def _last_trouble(log: Path) -> str:
    """The last warning or error of a log, in short; logs hold no secret."""
    found = ""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
        for line in file:
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("level") in ("warning", "error", "critical"):
                    found = " ".join(str(entry[name]) for name in ("event", "error") if name in entry)
    return found[:300]


def _limits() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _OPEN_FILES or soft == resource.RLIM_INFINITY:
        return ok("open files", f"{soft} are allowed")
    return warning(
        "open files", f"{soft} are allowed (at most {hard})", f"ulimit -n {_OPEN_FILES}, before `strongroom up`"
    )
