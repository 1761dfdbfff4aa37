"""Imports flow one way: cli -> analysis -> mixedprec -> sensitivity -> vggtkit, and downwards inside of vggtkit."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    {"vggtkit.core"},
    {"vggtkit.model", "vggtkit.scenes"},
    {"vggtkit.metrics", "vggtkit.quant"},
    {"vggtkit.subject"},
    {"vggtkit.runtime"},
    {"sensitivity"},
    {"mixedprec"},
    {"analysis"},
    {"cli"},
)
"""From the ground up; what stands on one floor imports itself and the floors below."""
TOPS = {"vggtkit", "sensitivity", "mixedprec", "analysis", "cli"}
# Nothing of these is for the packages to import: they are programs.
OUTSIDE = {"benchmarks", "training", "tests"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_in(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Of a file, wherever in it they stand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported_names(path: Path, root: Path, ours: set[str]) -> set[str]:
    """Names that the file imports; of a `from` import the submodule where it is one, else the package."""
    package = path.parent.relative_to(root).parts
    names: set[str] = set()
    for node in imports_in(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            members = {f"{source}.{alias.name}" for alias in node.names}
            names |= members & ours | ({source} if members - ours else set())
    return names


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports. A package's name stands for its ``__init__``."""
    files = [path for top in TOPS for path in [root / f"{top}.py", *sorted((root / top).rglob("*.py"))]]
    modules = {module_name(path, root): path for path in files if path.is_file()}
    tops = TOPS | OUTSIDE
    return {
        name: {other for other in imported_names(path, root, set(modules)) if other.split(".")[0] in tops} - {name}
        for name, path in modules.items()
    }


def place(name: str) -> tuple[int, str] | None:
    """The floor that a module stands on, and its package there; None for what stands on none."""
    for floor, packages in enumerate(FLOORS):
        for package in packages:
            if name == package or name.startswith(f"{package}."):
                return floor, package
    return None


def is_allowed(name: str, other: str) -> bool:
    here, there = place(name), place(other)
    if here is None or there is None:
        return False
    return there[0] < here[0] or there[1] == here[1]


def forbidden_imports(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, others in sorted(graph.items())
        for other in sorted(others)
        if not is_allowed(name, other)
    ]


def first_cycle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


DRAWN_BY = {
    "rich": {"analysis.report.renderers.terminal", "analysis.commands.screen"},
    "matplotlib": {"analysis.report.charts"},
    "plotly": {"analysis.report.renderers.html"},
}
"""What is imported by those that draw alone: what measures makes typed documents."""


def imports_of_drawing(root: Path) -> list[str]:
    """Modules that import what only those of `DRAWN_BY` may."""
    return [
        f"{name} imports {library}"
        for top in TOPS
        for path in [root / f"{top}.py", *sorted((root / top).rglob("*.py"))]
        if path.is_file()
        for name in [module_name(path, root)]
        for library in sorted({other.split(".")[0] for other in imported_names(path, root, set())} & DRAWN_BY.keys())
        if not any(name == drawer or name.startswith(f"{drawer}.") for drawer in DRAWN_BY[library])
    ]


def test_what_measures_knows_nothing_of_drawing() -> None:
    assert imports_of_drawing(ROOT) == []


def test_parts_of_scipy_are_loaded_when_they_are_used() -> None:
    """As ``scipy.optimize.milp``: by their names at the top they would take every command a second."""
    early = {
        f"{path.relative_to(ROOT)} imports {name}"
        for top in TOPS
        for path in (ROOT / top).rglob("*.py")
        for name in imported_names(path, ROOT, set())
        if name.startswith("scipy.")
    }
    assert early == set()


@pytest.mark.parametrize("library", ["matplotlib", "plotly"])
def test_what_draws_is_loaded_when_something_is_drawn(library: str) -> None:
    """Loading matplotlib takes a fifth of the start of a command, most of which draw nothing."""
    early = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "analysis").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom) and library in ast.unparse(node)
    ]
    assert early == []


def test_drawing_elsewhere_is_seen(tmp_path: Path) -> None:
    write_modules(
        tmp_path,
        {
            "mixedprec/a.py": "def f():\n    from rich.table import Table",
            "analysis/report/charts/b.py": "import matplotlib.ticker",
            "analysis/report/c.py": "import matplotlib",
        },
    )
    assert set(imports_of_drawing(tmp_path)) == {"mixedprec.a imports rich", "analysis.report.c imports matplotlib"}


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
        ({"sensitivity/a.py": "import analysis.b", "analysis/b.py": ""}, ["sensitivity.a imports analysis.b"]),
        (
            {"vggtkit/quant/c/a.py": "from ....analysis import b", "analysis/b.py": ""},
            ["vggtkit.quant.c.a imports analysis.b"],
        ),
        ({"mixedprec/a.py": "def f():\n    from cli import main", "cli.py": ""}, ["mixedprec.a imports cli"]),
        (
            {"vggtkit/scenes/a.py": "import vggtkit.model", "vggtkit/model/__init__.py": ""},
            ["vggtkit.scenes.a imports vggtkit.model"],
        ),
        ({"analysis/a.py": "from cli import main", "cli.py": ""}, ["analysis.a imports cli"]),
        ({"cli.py": "import benchmarks.x"}, ["cli imports benchmarks.x"]),
        (
            {
                "analysis/b.py": "from vggtkit.quant import a",
                "vggtkit/quant/a.py": "import vggtkit.core.errors",
                "vggtkit/core/errors.py": "",
            },
            [],
        ),
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
        ({"__init__": "", "a": "from . import b", "b": "from mixedprec.a import x"}, {"mixedprec.a", "mixedprec.b"}),
        (
            {"__init__": "from mixedprec.a import x", "a": "from mixedprec import b, y", "b": ""},
            {"mixedprec", "mixedprec.a"},
        ),
        ({"__init__": "from mixedprec.a import x", "a": "from mixedprec import b", "b": ""}, set()),
    ],
    ids=["two-modules", "through-init", "submodule-only"],
)
def test_a_circle_is_seen(tmp_path: Path, modules: dict[str, str], circle: set[str]) -> None:
    write_modules(tmp_path, {f"mixedprec/{name}.py": text for name, text in modules.items()})
    assert set(first_cycle(import_graph(tmp_path))) == circle


def test_only_subjects_ask_whether_a_model_is_a_vggt() -> None:
    modules = (path for top in TOPS for path in (ROOT / top).rglob("*.py"))
    asking = [path for path in modules if re.search(r"isinstance\([^)]*\bVGGT\b\)", path.read_text(encoding="utf-8"))]
    assert {path.parent for path in asking} == {ROOT / "vggtkit" / "subject"}
