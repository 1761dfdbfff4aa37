"""What a user registers in a file of his own stands in every table; the examples of the documentation do."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixedprec import load_plan
from sensitivity import open_profile
from sensitivity.scores import SCORES
from tests.analysis.commands.running import assert_refused, cli, the_json
from vggtkit.core import plugins
from vggtkit.metrics import METRICS
from vggtkit.quant import FORMATS
from vggtkit.runtime.backends import BACKENDS
from vggtkit.scenes import SCENE_KINDS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "extending.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
REGISTRIES = (FORMATS, SCORES, METRICS, SCENE_KINDS, BACKENDS)


def forget() -> None:
    """As in a new process: nothing of a plugin is left."""
    for registry in REGISTRIES:
        for key in [key for key in registry if key in ("int5_group_48", "peak", "largest", "listed", "autocast")]:
            registry.unregister(key)
    plugins._loaded.clear()
    for name in [name for name in sys.modules if name.startswith("_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mine.py"
    path.write_text("\n".join(BLOCKS), encoding="utf-8")
    yield path
    forget()


def test_every_example_is_short() -> None:
    assert len(BLOCKS) == 5
    assert max(len(block.splitlines()) for block in BLOCKS) < 30


@pytest.mark.slow
def test_the_examples_of_the_documentation_stand_in_every_table(
    plugin: Path, model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    pictures, run = tmp_path / "holiday", tmp_path / "run"
    pictures.mkdir()
    for picture in photo_folder.iterdir():
        (pictures / picture.name).write_bytes(picture.read_bytes())
    names = sorted(path.name for path in pictures.iterdir())
    (pictures / "frames.txt").write_text("\n".join(names), encoding="utf-8")
    assert "int5_group_48" in the_json(cli("--plugin", plugin, "formats", "--run", run, "--json"))
    profiled = cli(
        "profile", "--plugin", plugin, "--run", run, "--model", model_folder, "--scenes", f"listed:{pictures}",
        "--num-scenes", 1, "--probes", 1, "--json",
    )  # fmt: skip
    assert profiled.code == 0, profiled.err
    assert open_profile(run).candidates[-2:] == ("int5_group_48", "fp16")
    plan = ("plan", "--plugin", plugin, "--run", run)
    said = the_json(cli(*plan, "--formats", "int5_group_48", "--budget", "40%", "--json"))
    assert said["layers_by_format"] == {"int5_group_48": len(open_profile(run).layers)}
    assert "INT5 groups of 48" in cli(*plan, "--formats", "int5_group_48", "--budget", "40%").out
    judged = cli("evaluate", "--run", run, "--plugin", plugin, "--execute", "autocast", "--repeats", 0, "--json")
    assert judged.code == 0, judged.err
    results = json.loads((run / "comprehensive_results.json").read_text())["results"]
    executed = [row["key"] for row in results if row["execution"].get("backend") == "autocast"]
    assert executed == ["int8_per_channel_sym", "plan"]
    assert all(metrics["extra"]["largest"] >= 0 for row in results[1:] for metrics in row["outputs"].values())
    report = (run / "comprehensive_report.txt").read_text()
    assert report.count("largest") == len(results[1]["outputs"])  # a column of every output's table
    shown = cli(*plan, "--score", "peak")
    assert load_plan(run / "plan.json").score == "peak"
    assert "predicted in the unit of the score 'largest error'" in " ".join(shown.out.split())
    assert cli("report", "--run", run).code == 0
    forget()
    for command in ("plan", "evaluate"):
        assert_refused(cli(command, "--run", run), "unknown format 'int5_group_48'", "--plugin FILE")


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("1 / 0", ("ZeroDivisionError", "mine.py:1")),
        ("import nothing_of_this_name", ("ModuleNotFoundError", "nothing_of_this_name")),
        ("def f(:", ("SyntaxError",)),
        (
            "from vggtkit.quant import Format, register\nregister(Format('fp16', 'x', 16, 'float', True))",
            ("format 'fp16' is registered already", "mine.py:2"),
        ),
    ],
    ids=["fails", "imports", "syntax", "taken"],
)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_plugin_that_fails_is_named_in_one_line(
    plugin: Path, text: str, fragments: tuple[str, ...], before: bool
) -> None:
    plugin.write_text(text, encoding="utf-8")
    option = ("--plugin", str(plugin))
    ran = cli(*option, "formats") if before else cli("formats", *option)
    assert_refused(ran, f"--plugin {plugin}: cannot be loaded", *fragments)


def test_what_is_no_plugin_is_refused(tmp_path: Path) -> None:
    assert_refused(cli("formats", "--plugin", tmp_path / "none.py"), "none.py: no such file", "package.module")
    assert_refused(cli("formats", "--plugin", "no_such_module_at_all"), "no_such_module_at_all", "ModuleNotFoundError")


@pytest.mark.usefixtures("plugin")
def test_plugins_before_and_after_the_command_are_loaded_once_each(tmp_path: Path) -> None:
    counting = "import pathlib\nplace = pathlib.Path({!r})\nplace.write_text(place.read_text() + 'x')\n"
    counts = [tmp_path / f"count{number}" for number in (0, 1)]
    for number, count in enumerate(counts):
        count.write_text("")
        (tmp_path / f"p{number}.py").write_text(counting.format(str(count)))
    first, second = (tmp_path / f"p{number}.py" for number in (0, 1))
    ran = cli("--plugin", first, "formats", "--plugin", second, "--plugin", first, "--json")
    assert ran.code == 0, ran.err
    assert [count.read_text() for count in counts] == ["x", "x"]
