"""Imports flow one way: cli -> commands -> analysis -> mixedprec -> sensitivity -> quant -> model."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "errors": set(),
    "model": {"errors"},
    "scenes": {"errors"},
    "quant": {"errors", "model", "scenes"},
    "sensitivity": {"errors", "model", "scenes", "quant"},
    "mixedprec": {"errors", "model", "scenes", "quant", "sensitivity"},
    "analysis": {"errors", "model", "scenes", "quant", "sensitivity", "mixedprec"},
    "commands": {"errors", "model", "scenes", "quant", "sensitivity", "mixedprec", "analysis"},
    "cli": {"errors", "model", "scenes", "quant", "sensitivity", "mixedprec", "analysis", "commands"},
}
# Nothing of these is for the packages to import: they are programs.
OUTSIDE = {"benchmarks", "training", "tests"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path, root: Path, ours: set[str]) -> set[str]:
    """Names that the file imports; of a `from` import the submodule where it is one, else the package."""
    package = path.parent.relative_to(root).parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            members = {f"{source}.{alias.name}" for alias in node.names}
            names |= members & ours | ({source} if members - ours else set())
    return names


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports. A package's name stands for its ``__init__``."""
    files = [path for top in ALLOWED for path in [root / f"{top}.py", *sorted((root / top).rglob("*.py"))]]
    modules = {module_name(path, root): path for path in files if path.is_file()}
    tops = ALLOWED.keys() | OUTSIDE
    return {
        name: {other for other in imported_names(path, root, set(modules)) if other.split(".")[0] in tops} - {name}
        for name, path in modules.items()
    }


def forbidden_imports(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, others in sorted(graph.items())
        for other in sorted(others)
        if other.split(".")[0] not in ALLOWED[name.split(".")[0]] | {name.split(".")[0]}
    ]


def first_cycle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_against_the_arrow() -> None:
    assert forbidden_imports(import_graph(ROOT)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert first_cycle(import_graph(ROOT)) == []


def write_modules(root: Path, modules: dict[str, str]) -> None:
    for name, text in modules.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        ({"quant/a.py": "import analysis.b", "analysis/b.py": ""}, ["quant.a imports analysis.b"]),
        (
            {"quant/c/a.py": "from ...analysis import b", "analysis/b.py": ""},
            ["quant.c.a imports analysis.b"],
        ),
        ({"quant/a.py": "def f():\n    from cli import main", "cli.py": ""}, ["quant.a imports cli"]),
        ({"scenes/a.py": "import model", "model/__init__.py": ""}, ["scenes.a imports model"]),
        ({"analysis/a.py": "from commands import b", "commands/b.py": ""}, ["analysis.a imports commands.b"]),
        ({"cli.py": "import benchmarks.x"}, ["cli imports benchmarks.x"]),
        ({"analysis/b.py": "from quant import a", "quant/a.py": "import errors", "errors.py": ""}, []),
    ],
    ids=["upward", "relative", "inside-function", "beside", "command", "outside", "allowed"],
)
def test_the_arrow_is_seen(tmp_path: Path, modules: dict[str, str], found: list[str]) -> None:
    """The check itself: on small trees whose faults are known."""
    write_modules(tmp_path, modules)
    assert forbidden_imports(import_graph(tmp_path)) == found


@pytest.mark.parametrize(
    ("modules", "circle"),
    [
        ({"__init__": "", "a": "from . import b", "b": "from quant.a import x"}, {"quant.a", "quant.b"}),
        ({"__init__": "from quant.a import x", "a": "from quant import b, y", "b": ""}, {"quant", "quant.a"}),
        ({"__init__": "from quant.a import x", "a": "from quant import b", "b": ""}, set()),
    ],
    ids=["two-modules", "through-init", "submodule-only"],
)
def test_a_circle_is_seen(tmp_path: Path, modules: dict[str, str], circle: set[str]) -> None:
    write_modules(tmp_path, {f"quant/{name}.py": text for name, text in modules.items()})
    assert set(first_cycle(import_graph(tmp_path))) == circle
