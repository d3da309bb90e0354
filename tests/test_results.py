"""bench/RESULTS.md says what was measured, its plots and the pages that quote it say the same."""

import xml.etree.ElementTree as ET

from bench import plot, results
from bench.figures import Row

TEXT = plot.RESULTS.read_text()
FACTS = [["machine", "two cores"], ["versions", "some"]]
RUN = results.Run(("P2", "P9"), "python -m bench --only P2,P9", "2026-11-21", "abc1234")
SLOW = Row("P9", "list", "2.50 × (3 ms)", "≤ 2 ×", False)


def test_every_target_has_a_line() -> None:
    ids = {row.id for row in results.rows(TEXT)}
    assert {f"P{number}" for number in range(1, 12)} <= ids


def test_no_line_claims_more_than_its_figure() -> None:
    for row in results.rows(TEXT):
        if row.compared:
            value, bound, _ = row.comparison()
            # Of a figure that is printed as its target, the digits behind decided.
            assert value == bound or row.met == ((value > bound) == row.target.startswith("≥")), row


def test_every_figure_tells_its_run() -> None:
    told = {target for run in results.runs(TEXT) for target in run.ids}
    assert {row.id for row in results.rows(TEXT)} == told


def test_the_plots_are_those_of_the_figures() -> None:
    drawn = {path.name: path.read_text() for path in plot.PLOTS.glob("*.svg")}
    assert drawn == plot.plots(TEXT), "run `python -m bench.plot`"


def test_the_quoted_figures_are_those_of_the_results() -> None:
    page = plot.QUOTING.read_text()
    assert "| P1 |" in page
    assert page == plot.quoted(page, TEXT), "run `python -m bench.plot`"


def test_a_bar_reaches_the_line_if_its_figure_is_the_target() -> None:
    met = Row("P1", "push & pull", "2.00 ×", "≥ 2 ×", True)
    svg = ET.fromstring(plot.drawn("P1", [met, SLOW]))  # noqa: S314 - drawn here
    line = svg.find("{*}line")
    bars = [bar for bar in svg.findall("{*}rect") if bar.get("class") != "track"]
    assert line is not None
    assert [bar.get("class") for bar in bars] == ["met", "missed"]
    ends = [float(bar.get("x", "")) + float(bar.get("width", "")) for bar in bars]
    assert ends[0] == float(line.get("x1", "")) < ends[1]


def test_a_run_replaces_what_it_measured_and_leaves_the_rest() -> None:
    first = results.updated("", [Row("P10", "memory", "1 MiB", "≤ 2 MiB", True), SLOW], RUN, FACTS)
    first = first.replace("Nothing is known about these figures yet.", "- **P9**: known.")
    again = results.Run(("P9",), "python -m bench --only P9", "2026-11-22", "def5678")
    second = results.updated(first, [Row("P9", "list", "1.50 ×", "≤ 2 ×", True)], again, FACTS)
    assert [row.figure for row in results.rows(second)] == ["1.50 ×", "1 MiB"]
    assert [(run.ids, run.commit) for run in results.runs(second)] == [(("P2",), "abc1234"), (("P9",), "def5678")]
    assert "- **P9**: known." in second


def test_figures_of_another_machine_are_not_kept() -> None:
    first = results.updated("", [SLOW], RUN, FACTS)
    other = results.Run(("P1",), "python -m bench --only P1", "2026-11-22", "def5678")
    second = results.updated(first, [], other, [["machine", "four cores"]])
    assert results.rows(second) == []
    assert [run.ids for run in results.runs(second)] == [("P1",)]
