"""`python -m bench.plot`: draws the figures of bench/RESULTS.md beside their targets, and copies what docs/ quotes.

Every line of the table that has a target is a bar, as long as its share of the target, so that the targets of all lines
stand below each other. What should be at least so much shall reach the line, what should be at most so much shall not.
"""

import re
from html import escape
from pathlib import Path

from bench import results
from bench.figures import Row, table

BENCH = Path(__file__).resolve().parent
PLOTS = BENCH / "plots"
RESULTS = BENCH / "RESULTS.md"
QUOTING = BENCH.parent / "docs" / "comparison.md"
_QUOTED = re.compile(r"(<!-- figures of (.+?), by bench/plot\.py -->\n).*?(<!-- end of figures -->)", re.DOTALL)

_WIDTH, _LEFT, _TARGET, _RIGHT, _STEP, _TOP = 760, 16, 316, 600, 44, 44
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600; font-size: 14px }
.quiet { fill: #59636e }
.track { fill: #eff2f5 }
.met { fill: #1a7f64 }
.missed { fill: #c4571b }
.target { stroke: #1f2328; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .track { fill: #262c36 } .target { stroke: #e6edf3 }
  .met { fill: #3fb68f } .missed { fill: #f0883e }
}"""


def drawn(title: str, rows: list[Row]) -> str:
    """An SVG of the rows that have a figure and a target."""
    bars = "\n".join(_bar(row, _TOP + number * _STEP) for number, row in enumerate(rows))
    height = _TOP + len(rows) * _STEP + 8
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>{escape(title)}</title>
<style>{_STYLE}
</style>
<text class="head" x="{_LEFT}" y="22">{escape(title)}</text>
<text class="quiet" x="{_TARGET}" y="22" text-anchor="middle">target</text>
{bars}
</svg>
"""


def _bar(row: Row, top: int) -> str:
    value, bound, unit = row.comparison()
    end = _LEFT + (_TARGET - _LEFT) * value / bound
    length = min(end, _RIGHT) - _LEFT
    more = " →" if end > _RIGHT else ""
    kind = "met" if row.met else "missed"
    return f"""<text x="{_LEFT}" y="{top + 12}">{escape(f"{row.id} {row.work}".replace("`", ""))}</text>
<rect class="track" x="{_LEFT}" y="{top + 18}" width="{_RIGHT - _LEFT}" height="14" rx="2"/>
<rect class="{kind}" x="{_LEFT}" y="{top + 18}" width="{length:.1f}" height="14" rx="2"/>
<line class="target" x1="{_TARGET}" x2="{_TARGET}" y1="{top + 15}" y2="{top + 35}"/>
<text class="quiet" x="{_RIGHT + 8}" y="{top + 30}">{escape(f"{value:g} {unit}{more} ({row.target})")}</text>"""


def plots(text: str) -> dict[str, str]:
    """Every plot of the document by the name of its file."""
    compared = [row for row in results.rows(text) if row.compared]
    pages = {"all.svg": drawn("Figures beside their targets", compared)}
    for target in results.ids(compared):
        pages[f"{target}.svg"] = drawn(f"{target} beside its target", [row for row in compared if row.id == target])
    return pages


def quoted(page: str, text: str) -> str:
    """The page with the figures that it quotes as the document has them."""

    def figures(match: re.Match[str]) -> str:
        ids = match[2].split(", ")
        lines = [row.cells() for row in results.rows(text) if row.id in ids and row.target != "—"]
        return f"{match[1]}\n{table(['id', 'work', 'figure', 'target', ''], lines)}\n\n{match[3]}"

    return _QUOTED.sub(figures, page)


def main() -> None:
    text = RESULTS.read_text()
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    for name, svg in plots(text).items():
        (PLOTS / name).write_text(svg)
    QUOTING.write_text(quoted(QUOTING.read_text(), text))


if __name__ == "__main__":
    main()
