"""What the user of `strongroom up` sees: plain lines, with colours on a terminal."""

import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console as RichConsole
from rich.text import Text


@dataclass(frozen=True)
class Report:
    """Where everything is. `shown_key` is set at the first start alone."""

    url: str
    data_dir: Path
    seconds: float
    admin_key_file: Path | None
    shown_key: str | None = field(default=None, repr=False)
    # What a caller has to be told to trust.
    ca_file: Path | None = None
    # The address under which others hear callers speak in the clear; empty if none do.
    overheard: str = ""


class Console:
    """Prints to standard output. One that has been closed stops no service."""

    def __init__(self) -> None:
        self._rich = RichConsole(soft_wrap=True, highlight=False)

    def say(self, message: str, style: str = "") -> None:
        """One line."""
        with suppress(OSError):
            self._rich.print(Text(message, style))
            self._rich.file.flush()

    def trouble(self, message: str) -> None:
        """One line about something that went wrong and is taken care of."""
        self.say(message, "yellow")

    def ready(self, report: Report) -> None:
        """Where everything is and how to use it."""
        self.say(f"Strongroom is ready at {report.url} ({report.seconds:.1f} s)", "bold green")
        if report.overheard:
            heard = f"{report.overheard} is served without TLS: anyone on the way can read keys"
            self._row("warning", f"{heard}: strongroom pki init, see docs/tls.md", "yellow")
        key, file = report.shown_key, report.admin_key_file
        if key:
            self._row("admin key", f"{key}   (shown this once)", "bold")
        if file:
            self._row("key file" if key else "admin key", f"in {file}")
        else:
            self._row("admin key", "its file is gone; no new one is made. The keys you have work.")
        self._row("data, logs", f"{report.data_dir}, {report.data_dir / 'logs'}")
        source = shlex.quote(str(file)) if file else "KEYFILE"
        ca = shlex.quote(str(report.ca_file)) if report.ca_file else ""
        curl, variable = (f"curl --cacert {ca}", f" STRONGROOM_CA_FILE={ca}") if ca else ("curl", "")
        self._row("curl", f'{curl} -H "X-API-Key: $(cat {source})" {report.url}/api/v1/caller')
        self._row("strongroom", f'export STRONGROOM_URL={report.url}{variable} STRONGROOM_API_KEY="$(cat {source})"')
        self._row("stop", "Ctrl-C")

    def _row(self, label: str, value: str, style: str = "") -> None:
        with suppress(OSError):
            self._rich.print(Text.assemble((f"  {label:<12}", "dim"), (value, style)))
            self._rich.file.flush()
