"""Results of benchmarks: verdicts, files, tables, plots and profiles."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks import report
from benchmarks.harness import Comparison, Forgetful, Target, compact_json, read, save, server
from benchmarks.peers.common import Ledger
from benchmarks.plot import Mark, bars, lines
from benchmarks.profiler import summary
from benchmarks.start import imports
from sqlalchemy import Engine

FASTER = Comparison(
    question="drain",
    unit="jobs/s",
    samples={"raw": [100.0, 110.0, 90.0], "riverrun": [95.0, 99.0, 99.0], "River": [50.0] * 3},
    targets=[
        Target("riverrun", 1.0),
        Target("riverrun", 1.5, "River"),
        Target("riverrun", 1.0, "absent"),
    ],
)
SOONER = Comparison(
    question="pick-up",
    unit="ms",
    samples={"riverrun": [1.0] * 98 + [7.0, 9.0]},
    targets=[Target("riverrun", 2.0, percentile=50), Target("riverrun", 5.0, percentile=99)],
    less=True,
)


def test_a_ratio_is_that_of_medians_and_has_the_spread_of_neighbours() -> None:
    """A target against a side compares medians; without samples of both, there is no verdict."""
    first, second = FASTER.verdicts()
    assert first.value == pytest.approx(0.99)
    assert first.spread == pytest.approx((0.9, 1.1))
    assert (first.reached, second.reached) == (False, True)
    assert FASTER.missed() == {"riverrun"}


def test_a_percentile_is_held_against_its_limit() -> None:
    """The median and the 99th percentile each have a limit of their own."""
    assert [(each.value, each.reached) for each in SOONER.verdicts()] == [(1.0, True), (7.0, False)]


def test_a_mapping_is_short_for_ratios_to_the_first_side() -> None:
    """A script may pass its targets as a mapping."""
    short = Comparison(question="", unit="", samples={"a": [2.0], "b": [1.0]}, targets={"b": 0.4})
    assert [each.reached for each in short.verdicts()] == [True]


def test_what_is_saved_is_read_again(engine: Engine, tmp_path: Path) -> None:
    """A file has all figures, with the samples of a side on one line, and the environment."""
    path = tmp_path / "results" / "drain.json"
    save(engine, [FASTER, SOONER], path, took_s=1.5, load=0.1)
    saved = read(path)
    assert saved is not None
    assert saved["comparisons"] == [FASTER, SOONER]
    assert {"revision", "versions", "machine", "server", "seconds"} <= set(saved)
    assert '"raw": [100.0, 110.0, 90.0]' in path.read_text()
    assert read(tmp_path / "none.json") is None


def test_compact_json_is_json() -> None:
    """Each array of numbers is on one line; everything else is like json's output."""
    value = {"a": [1.234567, 2], "b": [], "c": ["[1,\n2]", {"d": [None, 3.0]}], "e": "x, [ 1 ]"}
    assert json.loads(compact_json(value)) == {**value, "a": [1.2346, 2]}


def test_a_table_says_what_was_missed() -> None:
    """Each target has a row that names its side, what it is measured against, and the verdict."""
    rows = report.table([FASTER, SOONER]).splitlines()
    assert (
        "| drain | riverrun | 99 jobs/s (95 to 99) | raw | ≥ 1x | 0.99x (0.90 to 1.10) |" in rows[3]
    )
    assert rows[3].endswith("| **MISSED** |")
    assert rows[4].endswith("| reached |")
    assert "p99 ≤ 5 ms | 7 ms | **MISSED** |" in rows[-1]
    assert "MISSED" not in report.table([FASTER, SOONER], judged=False)


@pytest.mark.parametrize(
    "svg",
    [
        bars("a < b & c", {"raw & <plain>": [1.0, 3.0, 2.0], "riverrun": [0.0]}, unit="ms"),
        lines("m", {"<a>": [(0, 1), (9, 200.0)], "none": []}, unit="MB", marks=[Mark(4, "kill")]),
        lines("flat", {"zero": [(0, 0), (0, 0)]}, unit="jobs"),
    ],
)
def test_a_plot_is_svg_for_light_and_dark_readers(svg: str) -> None:
    """Whatever the names and values, the plot is well-formed, and has colours for both."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in svg
    assert "nan" not in svg


def test_imports_are_added_up_by_package() -> None:
    """The slowest package comes first, with its modules' own times."""
    log = """import time: self [us] | cumulative | imported package
import time:       200 |        200 |     sqlalchemy.util
import time:      1000 |       1200 |   sqlalchemy
import time:       500 |       1700 | riverrun
"""
    _, *rows = imports(log).splitlines()
    assert [row.split() for row in rows] == [
        ["0.001", "2", "sqlalchemy"],
        ["0.001", "1", "riverrun"],
    ]


def test_a_profile_is_of_the_processes_that_work() -> None:
    """Looks at imports, and at the process that only waits for its children, do not count."""
    text = summary(
        'process 1:"run";wait (drain.py:1) 50\n'
        'process 1:"run";process 2:"work";_find (<frozen importlib>:1) 50\n'
        'process 1:"run";process 2:"work";work (a/b/work.py:3);claim (b/claim.py:7) 3\n'
        'process 1:"run";process 2:"work";work (a/b/work.py:4) 1\n'
    )
    assert text.splitlines()[1:] == [
        " 75.0%  75.0%  claim (b/claim.py)",
        " 25.0% 100.0%  work (b/work.py)",
    ]


def test_a_ledger_counts_calls(tmp_path: Path) -> None:
    """All processes that share the file see each call, also a second one."""
    path = str(tmp_path / "ledger")
    ledger = Ledger.make(path, 3)
    for number in (0, 2, 2):
        Ledger(path, 3).call(number)
    assert [times for _, times in ledger.calls()] == [1, 0, 2]


def test_a_server_that_forgets_is_refused(database_url: str) -> None:
    """Benchmarks refuse a server whose commits do not wait for the disk, such as that of tests."""
    with pytest.raises(Forgetful, match="fsync"), server(database_url):
        pass
