"""Where tests stand, what modules import, and what the headers of long and calling modules name.

tests/unit mirrors the source, and needs neither a server nor a process.
"""

import ast
import graphlib
import re
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "riverrun"
UNIT = ROOT / "tests" / "unit"
LINES_MAX = 400
SERVERS = {"copied", "database_url", "empty_database", "engine", "schema", "server_url"}
PROCESSES = {"multiprocessing", "subprocess"}


def module_of(path: Path) -> Path | None:
    """Return the module or package that a file of unit tests is named for, or None."""
    folder = SOURCE / path.parent.relative_to(UNIT)
    # test_context.py is for context.py, and so is test_context_bounds.py.
    words = path.stem.split("_")[1:]
    for count in range(len(words), 0, -1):
        found = folder / "_".join(words[:count])
        if found.with_suffix(".py").exists() or (found / "__init__.py").exists():
            return found
    return None


@pytest.mark.parametrize("path", sorted(UNIT.rglob("*.py")), ids=lambda path: path.stem)
def test_unit_tests_mirror_the_source(path: Path) -> None:
    """Each file of tests/unit stands where the module stands that it is named for."""
    assert module_of(path) is not None, f"{path.relative_to(ROOT)}: no module of this name there"


@pytest.mark.parametrize("path", sorted(UNIT.rglob("*.py")), ids=lambda path: path.stem)
def test_unit_tests_need_nothing(path: Path) -> None:
    """No unit test asks for a server, starts a process, or sleeps."""
    needs = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                parameters = " ".join(ast.unparse(each) for each in node.decorator_list)
                fixtures = {each.arg for each in node.args.args} & SERVERS
                needs |= {each for each in fixtures if f"'{each}'" not in parameters}
            case ast.Import():
                needs |= {each.name for each in node.names} & PROCESSES
            case ast.ImportFrom(module=str(name)):
                needs |= {name} & PROCESSES
            case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
                needs.add("time.sleep")
    assert not needs, f"{path.relative_to(ROOT)} needs {needs}: it belongs into another folder"


@pytest.mark.parametrize("folder", ["client", "maintenance", "runtime"])
def test_headers_name_the_calls_upwards(folder: str) -> None:
    """A module whose class is given a call to make, such as `on_due`, names it in its header."""
    missing = []
    for path in sorted((SOURCE / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        header = ast.get_docstring(tree) or ""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                given = [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
                calls = [name for name in given if name.startswith("on_") or name == "settled"]
                missing += [f"{path.name}: {name}" for name in calls if f"`{name}`" not in header]
    assert not missing


def test_long_modules_have_a_reason() -> None:
    """A module of more than 400 lines gives the reason in its header: 'although long: ...'."""
    without = []
    for path in sorted(SOURCE.rglob("*.py")):
        source = path.read_text()
        header = ast.get_docstring(ast.parse(source)) or ""
        if source.count("\n") > LINES_MAX and not re.search(r"although\s(it\sis\s)?long", header):
            without.append(path.name)
    assert not without


def test_modules_import_in_no_circle() -> None:
    """No module needs itself, not even for its types: each can be read after those it imports."""
    graph = grimp.build_graph("riverrun", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # it raises, with the circle
