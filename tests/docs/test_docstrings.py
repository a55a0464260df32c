"""Docstrings of public names: they exist, are complete, and their examples work."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, make_url
from sqlalchemy.orm import DeclarativeBase

import riverrun
from docs.docstring_examples import EXAMPLES, Example
from riverrun import Client
from riverrun.migrations import migrate

PUBLIC = (
    "riverrun",
    "riverrun.errors",
    "riverrun.ext.alembic",
    "riverrun.ext.flask",
    "riverrun.ext.pyramid",
    "riverrun.ext.pytest",
    "riverrun.instrumentation.opentelemetry",
    "riverrun.instrumentation.prometheus",
    "riverrun.migrations",
    "riverrun.models",
    "riverrun.testing",
    "riverrun.verbs",
)
REFERS = re.compile(r"\b[Ss]ee `|\bAs `|, as `|\bSee the function `")


def documented() -> Iterator[tuple[str, Any]]:
    """Yield every public name with its object, and the public members of classes."""
    for name in PUBLIC:
        module = importlib.import_module(name)
        yield name, module
        own = [key for key, value in vars(module).items() if _is_of(value, name)]
        for key in getattr(module, "__all__", own):
            if key.startswith("_"):
                continue
            value = getattr(module, key)
            yield f"{name}.{key}", value
            if inspect.isclass(value):
                for member, what in _members(value).items():
                    yield f"{name}.{key}.{member}", what


def _members(cls: type) -> dict[str, Any]:
    """Return the public methods and properties of `cls` that are riverrun's own.

    Each is the first one that has the name: what overrides it need not repeat its docstring.
    """
    ours = [base for base in cls.__mro__ if base.__module__.startswith("riverrun")]
    others = {name for base in cls.__mro__ if base not in ours for name in vars(base)}
    members: dict[str, Any] = {}
    for base in reversed(ours):
        for name, value in vars(base).items():
            if inspect.isfunction(value) or isinstance(value, property):
                members.setdefault(name, value)
    return {
        name: value
        for name, value in members.items()
        if not name.startswith("_") and name not in others
    }


def _is_of(value: object, module: str) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module


def test_every_public_name_has_a_docstring() -> None:
    """Every public name has a docstring of its own."""
    lack = [name for name, value in documented() if not (_doc(value) or "").strip()]
    assert not lack


def test_docstrings_name_every_parameter_and_field() -> None:
    """A docstring describes each parameter, or each field of an options class, or refers to one."""
    lack = {}
    for name, value in documented():
        doc = _doc(value) or ""
        if REFERS.search(doc):
            continue
        names = _names(value)
        missing = [each for each in names if not re.search(rf"\b{re.escape(each)}\b", doc)]
        if missing:
            lack[name] = missing
    assert not lack, "\n".join(f"{name}: {', '.join(missing)}" for name, missing in lack.items())


def _doc(value: Any) -> str | None:
    if isinstance(value, property):
        return value.fget.__doc__ if value.fget else None
    doc: str | None = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return doc


def _names(value: Any) -> list[str]:
    """Return the parameters of a function, or the public fields of an options class."""
    if inspect.isclass(value):
        if "__attrs_attrs__" in vars(value):
            fields = attrs.fields(value)
            public = [each for each in fields if each.init and not each.name.startswith("_")]
            return [each.name for each in public if not each.inherited]
        # Users do not make instances of other attrs classes, so their parameters do not matter.
        made_by_users = "Attributes:" not in (value.__doc__ or "")
        ready = issubclass(value, Exception | DeclarativeBase)
        if made_by_users and not ready and "__init__" in vars(value):
            return _names(vars(value)["__init__"])
        return []
    if not inspect.isfunction(value):
        return []
    names = inspect.signature(value).parameters
    return [name for name in names if name not in {"self", "cls"} and not name.startswith("_")]


def written() -> Iterator[tuple[str, list[str]]]:
    """Yield the names of objects whose docstrings have examples, and the examples."""
    paths = sorted(Path(riverrun.__path__[0]).rglob("*.py"))
    for path in paths:
        module = ".".join(
            ("riverrun", *path.relative_to(riverrun.__path__[0]).with_suffix("").parts)
        )
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                code = _code(ast.get_docstring(node) or "")
                if code:
                    name = "" if isinstance(node, ast.Module) else f".{node.name}"
                    yield module.removesuffix(".__init__") + name, code


def _code(doc: str) -> list[str]:
    """Return the indented paragraphs that follow a blank line: those are examples."""
    found = re.findall(r"(?:\A|\n\n)((?: {4}.*(?:\n|\Z)|\n(?= {4}))+)", doc)
    return [textwrap.dedent(each) for each in found]


def test_every_example_is_known_here() -> None:
    """The tested docstrings are exactly those with an example."""
    assert {name for name, _ in written()} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_true(name: str, empty_database: Engine) -> None:
    """A docstring's example works, with the setup that it needs."""
    example: Example = EXAMPLES[name]
    namespace: dict[str, Any] = {
        "__name__": "__main__",
        "engine": empty_database,
        "url": make_url(empty_database.url).render_as_string(hide_password=False),
    }
    if example.migrated:
        migrate(empty_database)
    run: Callable[[str], None] = lambda code: exec(textwrap.dedent(code), namespace)  # noqa: E731
    run(example.given)
    for code in dict(written())[name]:
        run(code)
    run(example.then)
    for each in namespace.values():
        if isinstance(each, Client):
            each.flush_announcements()  # or its connection would outlive the engine
            each.engine.dispose()
