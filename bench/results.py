"""bench/RESULTS.md: read back, and brought up to date by a run that measured some of the targets.

A full run takes hours, so a run replaces the figures that it measured and leaves the others, with the command, the day
and the commit of each. Figures of another machine are not comparable, and go.
"""

import re
from dataclasses import dataclass, replace

from bench.figures import Row, table

_ROW = re.compile(r"^\| ([A-Z]\d+) \| (.*?) \| (.*?) \| (.*?) \| (met|\*\*missed\*\*|—) \|$", re.MULTILINE)
_RUN = re.compile(r"^\| ([A-Z]\d+(?:, [A-Z]\d+)*) \| `(.+?)` \| (\S+) \| (\S+) \|$", re.MULTILINE)
_MACHINE = re.compile(r"^\| machine \| (.+) \|$", re.MULTILINE)
_VERDICTS = {"met": True, "**missed**": False, "—": None}
# What people wrote about the figures stands below this heading, and stays.
_NOTES = "## What limits each"


@dataclass(frozen=True)
class Run:
    """How the figures of some targets came about."""

    ids: tuple[str, ...]
    command: str
    day: str
    commit: str

    def without(self, ids: tuple[str, ...]) -> "Run":
        return replace(self, ids=tuple(target for target in self.ids if target not in ids))

    def cells(self) -> list[str]:
        return [", ".join(self.ids), f"`{self.command}`", self.day, self.commit]


def rows(text: str) -> list[Row]:
    """The lines of the table of figures."""
    return [Row(*cells, _VERDICTS[verdict]) for *cells, verdict in _ROW.findall(text)]


def runs(text: str) -> list[Run]:
    return [Run(tuple(found.split(", ")), *rest) for found, *rest in _RUN.findall(text)]


def ids(found: list[Row]) -> list[str]:
    """Which targets they are about, in their order."""
    return list(dict.fromkeys(row.id for row in found))


def in_order(found: list[Row]) -> list[Row]:
    """P1 to P11, then those of other letters; the lines of each in the order in which they were measured."""
    return sorted(found, key=lambda row: (row.id[0] != "P", row.id[0], int(row.id[1:])))


def updated(old: str, measured: list[Row], run: Run, facts: list[list[str]]) -> str:
    """The document with what was measured in place of what it said of the same targets.

    Args:
        old: the document until now, or nothing.
        facts: name and value of what held for this run: machine, versions, peers.
    """
    before = _MACHINE.search(old)
    kept = old if before and ["machine", before[1]] in facts else ""
    figures = in_order([row for row in rows(kept) if row.id not in run.ids] + measured)
    history = [one for one in (*(other.without(run.ids) for other in runs(kept)), run) if one.ids]
    plots = "\n".join(f"![{target}](plots/{target}.svg)" for target in ids([row for row in figures if row.compared]))
    notes = kept[kept.index(_NOTES) :] if _NOTES in kept else f"{_NOTES}\n\nNothing is known about these figures yet.\n"
    return f"""# Results

{table(["", ""], facts)}

Client, gateway, services and peers share the machine's cores. Figures are medians of alternating runs, the fastest and
the slowest in brackets; a peer's ratio is its time by ours, so more is better. `make bench` measures everything,
`python -m bench --only P5,P8` brings these up to date, and `python -m bench.plot` draws the plots.

![Every figure beside its target](plots/all.svg)

The bar of what should be *at least* so much (≥) shall reach the line, that of what should be *at most* so much (≤)
shall stay below it.

{table(["id", "work", "figure", "target", ""], [row.cells() for row in figures])}

## How each was measured

{table(["ids", "command", "on", "at commit"], [one.cells() for one in history])}

## Each beside its target

{plots}

{notes}"""
