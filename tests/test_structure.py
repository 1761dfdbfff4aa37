"""The size of modules, functions and commands, and what every package says of its modules."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import analysis.commands
from cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("vggtkit", "sensitivity", "mixedprec", "analysis")
MODULES = [*sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py")), ROOT / "cli.py"]
PACKAGES = [path for path in MODULES if path.name == "__init__.py"]
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 60, 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def own_lines(function: Function) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    first = function.body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_text else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def described_modules(docstring: str) -> set[str]:
    """Names in the first column of a package's table."""
    rows = re.findall(r"^\| (`[^|]*) \|", docstring, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def modules_in(package: Path) -> set[str]:
    """Modules and packages of a folder."""
    folders = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    return folders | {path.stem for path in package.glob("*.py") if path.name != "__init__.py"}


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    long = {function.name: own_lines(function) for function in functions_of(ast.parse(text))}
    assert {name: lines for name, lines in long.items() if lines > MOST_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", PACKAGES, ids=place)
def test_every_package_says_what_each_of_its_modules_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert described_modules(docstring) == modules_in(path.parent)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_few_parameters_beside_shared_groups(name: str) -> None:
    command = getattr(getattr(analysis.commands, name), name)
    hints = get_type_hints(command)
    own = [key for key in inspect.signature(command).parameters if not dataclasses.is_dataclass(hints[key])]
    assert len(own) <= MOST_PARAMETERS


def test_a_long_function_is_seen() -> None:
    """The check itself: the docstring does not count, everything else does."""
    text = 'def f():\n    """One.\n\n    Two.\n    """\n' + "    pass\n" * 61
    assert own_lines(next(functions_of(ast.parse(text)))) == 62
    assert described_modules("| `a`, `b` | c `d` |\n| module | holds |") == {"a", "b"}
