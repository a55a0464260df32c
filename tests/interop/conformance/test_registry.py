"""The table of scenarios says what is tested, and nothing else."""

import re
from pathlib import Path

from interop.conformance.registry import NOT_OFFERED, TIERS, table

HERE = Path(__file__).parent
DOCS = HERE.parents[2] / "docs" / "conformance.md"
SCENARIOS = [scenario for scenarios in TIERS.values() for scenario in scenarios]
NAMES = [scenario.name for scenario in SCENARIOS]


def test_each_scenario_has_a_test_of_its_name() -> None:
    """No scenario is without a test or a reason, and no test here without a scenario."""
    tests: list[str] = []
    for path in HERE.glob("test_*.py"):
        if path != Path(__file__):
            tests += re.findall(r"^def test_(\w+)\(", path.read_text(), re.MULTILINE)
    offered = [each.name for each in SCENARIOS if each.result != NOT_OFFERED]
    assert sorted(tests) == sorted(offered)
    assert all(each.note for each in SCENARIOS if each.result == NOT_OFFERED)
    assert len(set(NAMES)) == len(NAMES) == 112


def test_the_documentation_shows_the_table() -> None:
    """What docs/conformance.md says of each scenario is what is written beside its name."""
    assert table() in DOCS.read_text()
