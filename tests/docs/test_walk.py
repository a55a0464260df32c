"""The walk of a job, as the package, CONTRIBUTING.md and the modules themselves describe it."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import riverrun

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "riverrun"
STEP = re.compile(r"Step (\d) of 5, (\w+): .+")
VERBS = {1: "insert", 2: "notify", 3: "claim", 4: "execute", 5: "complete"}


def of_modules() -> dict[int, set[str]]:
    """Return, by step, the modules that begin with it."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        if match := STEP.fullmatch(first):
            assert match[2] == VERBS[int(match[1])], path
            found[int(match[1])].add(path.relative_to(SOURCE).as_posix())
    return found


def named(text: str) -> set[str]:
    """Return the modules that a text names."""
    return set(re.findall(r"`([\w/]+\.py)`", text))


def test_the_package_names_every_module_of_each_step() -> None:
    """Who reads the package's first lines finds each module that a job passes through."""
    text = (riverrun.__doc__ or "").partition("Plugins")[0]
    steps = re.split(r"^(\d)\. ", text, flags=re.MULTILINE)[1:]
    listed = {
        int(number): named(step) for number, step in zip(steps[::2], steps[1::2], strict=True)
    }
    assert listed == of_modules()


def test_contributing_names_every_module_of_each_step() -> None:
    """The table for contributors says the same."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d) (\w+) \|(.*)$", text, flags=re.MULTILINE)
    assert [(int(number), verb) for number, verb, _ in rows] == list(VERBS.items())
    assert {int(number): named(row) for number, _, row in rows} == of_modules()
