"""The table of scenarios shows exactly what the tests assert."""

import ast
import inspect
import sys
from pathlib import Path
from types import FunctionType

import attrs
import pytest

from interop.conformance.registry import (
    NOT_OFFERED,
    TIERS,
    Differs,
    NotOffered,
    Passed,
    differs,
    outcomes,
    scenario_tests,
    table,
)

DOCS = Path(__file__).parents[3] / "docs" / "conformance.md"
NAMES = [name for names in TIERS.values() for name in names]
# The fixtures and parameters that run a test once for each side.
SIDES = {"by", "first", "leader", "loser", "name", "side", "to", "winner"}
CONSTANTS = {"GO", "PYTHON"}


def functions_of(test: FunctionType) -> list[ast.FunctionDef]:
    """Return the definitions of a test and of the functions of its module that it calls."""
    module = sys.modules[test.__module__]
    tree = ast.parse(inspect.getsource(module))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = [functions[test.__name__]]
    for function in found:
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and (called := functions.get(node.id)) not in (
                None,
                *found,
            ):
                found.append(called)
    return found


def asks_for_its_side(function: ast.FunctionDef) -> list[str]:
    """Return the comparisons by which a function treats the two sides differently."""

    def names_a_side(node: ast.expr) -> bool:
        match node:
            case ast.Constant(value="go" | "python"):
                return True
            case ast.Name(id=name):
                return name in CONSTANTS
            case ast.Attribute(value=ast.Name(id="fleet"), attr="go" | "python"):
                return True
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                return any(map(names_a_side, items))
        return False

    return [
        ast.unparse(node)
        for node in ast.walk(function)
        if (
            isinstance(node, ast.Compare) and any(map(names_a_side, (node.left, *node.comparators)))
        )
        or (isinstance(node, ast.match_case) and "go" in ast.unparse(node.pattern))
        or (isinstance(node, ast.Dict) and any(key and names_a_side(key) for key in node.keys))
    ]


def has_both_sides(functions: list[ast.FunctionDef]) -> bool:
    """Return whether a test runs for each side, or names both."""
    parameters = {argument.arg for argument in functions[0].args.args}
    text = "\n".join(map(ast.unparse, functions))
    named = {"go", "python"} <= parameters or any(
        go in text and python in text
        for go, python in (("fleet.go", "fleet.python"), ("'go'", "'python'"))
    )
    return bool(parameters & SIDES) or named or "BOTH" in text or "WAYS" in text


def test_each_scenario_has_a_test_of_its_name() -> None:
    """Each scenario has a test or a reason why not, and each test here has a scenario."""
    assert sorted(scenario_tests()) == sorted(set(NAMES) - set(NOT_OFFERED))
    assert sorted(outcomes()) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES) == 112


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_OFFERED])
def test_a_passed_scenario_puts_the_same_assertions_to_both_sides(name: str) -> None:
    """A `@passed` test makes the same assertions about riverrun as about River itself."""
    functions = functions_of(scenario_tests()[name])
    asked = [each for function in functions for each in asks_for_its_side(function)]
    outcome = outcomes()[name]
    if isinstance(outcome, Differs):
        return
    assert isinstance(outcome, Passed)
    assert outcome.candidate_only or has_both_sides(functions), "this test has one side only"
    assert not asked, f"this test asks which side it has; a row that differs says so: {asked}"


@pytest.mark.parametrize("missing", ["river", "riverrun", "because"])
def test_a_row_that_differs_states_both_assertions_and_why(missing: str) -> None:
    """`@differs` requires River's assertion, riverrun's and the reason."""
    stated = {"river": "waits", "riverrun": "skips", "because": "faster"}
    with pytest.raises(ValueError, match=missing):
        differs("asks", **{**stated, missing: " "})
    with pytest.raises(TypeError, match=missing):
        Differs(asks="asks", **{key: stated[key] for key in stated if key != missing})
    row = Differs(asks="asks", **stated)
    assert all(words in row.result for words in stated.values())


def test_no_row_claims_more_than_its_sort() -> None:
    """Only the results of passed rows contain the word passed."""
    for name, outcome in outcomes().items():
        claims = outcome.result.startswith("passed")
        assert claims == isinstance(outcome, Passed), name
        assert isinstance(outcome, Passed | Differs | NotOffered)
        assert "|" not in "".join(map(str, attrs.astuple(outcome))), name


def test_the_documentation_shows_the_table() -> None:
    """For each scenario, docs/conformance.md shows the result that its test records."""
    assert table() in DOCS.read_text()
