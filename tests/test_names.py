"""Two things never share a name; what plays the same part in several modules may."""

import ast
from collections import defaultdict
from pathlib import Path

from cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("vggtkit", "sensitivity", "mixedprec", "analysis")
SAME_PART = {"EXAMPLES", "document", "render", "register", *COMMANDS}
"""Of a command's help, a part of a report, a renderer, a registry; and a command is called as the function it calls."""


def defined_names(tree: ast.Module) -> set[str]:
    """Public functions, classes, aliases and constants of a module, without what it imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def shared_names(root: Path) -> dict[str, list[str]]:
    """Names that several modules define, with these modules.

    A constant that only its own module reads may have the name of another one.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for top in TOPS for path in (root / top).rglob("*.py")}
    places: dict[str, list[str]] = defaultdict(list)
    imported: set[tuple[str, str]] = set()
    for path, tree in sorted(trees.items()):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for name in defined_names(tree):
            places[name].append(module)
        imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        imported |= {(node.module or "", alias.name) for node in imports for alias in node.names}
    return {
        name: modules
        for name, modules in places.items()
        if len(modules) > 1 and (not name.isupper() or any((module, name) in imported for module in modules))
    }


def test_two_things_never_share_a_name() -> None:
    assert {name: modules for name, modules in shared_names(ROOT).items() if name not in SAME_PART} == {}


def test_what_plays_the_same_part_does_so_in_several_modules() -> None:
    """So that the list of exceptions does not outlive them."""
    assert SAME_PART - set(COMMANDS) - {"EXAMPLES"} <= shared_names(ROOT).keys()


def test_shared_names_are_seen(tmp_path: Path) -> None:
    modules = {
        "mixedprec/a.py": "class Part: ...\nSIZE = 1\nREAD = 1\ndef _own(): ...",
        "mixedprec/b.py": "Part = int\nSIZE = 2\nREAD = 2\ndef _own(): ...",
        "analysis/c.py": "from mixedprec.b import READ, Part\nfrom mixedprec.a import _own",
    }
    for name, text in modules.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert shared_names(tmp_path) == {"Part": ["mixedprec.a", "mixedprec.b"], "READ": ["mixedprec.a", "mixedprec.b"]}
