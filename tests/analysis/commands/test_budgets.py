"""Time and memory as budgets, from the table to the evaluation; nothing depends on how fast the machine is."""

import json
import shutil
from pathlib import Path

import pytest

from mixedprec import load_plan
from tests.analysis.commands.running import Ran, assert_refused, cli, the_json
from vggtkit.core.seal import sealed


@pytest.fixture(scope="module")
def table(finished: tuple[Path, dict[str, Ran]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of the run's own model and pictures."""
    run = Path(shutil.copytree(finished[0], tmp_path_factory.mktemp("measured") / "run"))
    said = the_json(cli("kernels", "--run", run, "--seconds", 1, "--json"))
    assert said["views"] == 2
    assert said["size"] == [32, 32]
    assert Path(str(said["path"])) == run / "kernels.json"
    return (run / "kernels.json").read_bytes()


@pytest.fixture
def timed(run: Path, table: bytes) -> Path:
    """A run with its kernel table."""
    (run / "kernels.json").write_bytes(table)
    return run


@pytest.mark.slow
def test_from_the_table_to_the_evaluation(timed: Path) -> None:
    said = the_json(cli("plan", "--run", timed, "--max-time", "100x", "--budget", "40%", "--json"))
    plan = load_plan(timed / "plan.json")
    assert said["size_bytes"] <= said["budget_bytes"]
    assert said["takes"]["seconds"] <= 100 * said["takes"]["fp32_seconds"]
    assert set(plan.executions) <= set(plan.formats)
    assert sum(said["executions"].values()) == len(plan.executions)
    shown = cli("plan", "--run", timed, "--max-time", "100x", "--budget", "40%")
    assert "s predicted for 2 pictures" in shown.out
    judged = cli("evaluate", "--run", timed, "--execute", "int8", "--repeats", 1)
    assert judged.code == 0, judged.err
    assert "measured on the wall" in judged.out
    results = json.loads((timed / "comprehensive_results.json").read_text())
    execution = next(row for row in results["results"] if row["key"] == "plan")["execution"]
    told = [name for name, how in plan.executions.items() if how.startswith("int8")]
    assert execution["layers"].get("int8", 0) == len(told)


def test_a_limit_below_what_is_possible_is_refused_with_the_smallest(timed: Path) -> None:
    refused = cli("plan", "--run", timed, "--max-time", "1ms")
    assert_refused(refused, "--max-time 1ms", "the least possible is", "--budget 100%")
    refused = cli("plan", "--run", timed, "--max-memory", "1KB")
    assert_refused(refused, "--max-memory 1KB", "the least possible is", "are activations of 2 pictures")
    least = refused.err.partition("possible is ")[2].partition("B")[0]
    said = the_json(cli("plan", "--run", timed, "--max-memory", f"{least}B", "--json"))
    assert said["takes"]["memory_bytes"] == int(least)
    assert said["takes"]["activation_bytes"] > 0


def test_tables_of_others_are_never_used(timed: Path) -> None:
    path = timed / "kernels.json"
    values = json.loads(path.read_text())
    values["machine"]["processor"] = "an abacus"
    path.write_text(json.dumps(sealed(values)))
    refused = ("measured with processor 'an abacus'", "kernels --model")
    assert_refused(cli("plan", "--run", timed, "--max-time", "1s"), *refused)
    assert_refused(cli("forecast", "--run", timed), *refused)
    path.unlink()
    assert_refused(cli("plan", "--run", timed, "--max-time", "1s"), "no such file", "kernels --run")


def test_a_forecast_runs_nothing_and_stands_beside_the_plan(timed: Path) -> None:
    said = the_json(cli("forecast", "--run", timed, "--images", "4, 1", "--json"))
    rows = {(row["way"], row["views"]): row for row in said["forecasts"]}
    assert {views for _, views in rows} == {1, 4}
    for way in ("FP32", "plan, reference", "plan, int8"):
        assert rows[way, 4]["peak_bytes"] > rows[way, 1]["peak_bytes"]
        assert rows[way, 1]["seconds"] > 0
    for way in ("FP32", "plan, reference"):  # whole numbers take the fastest way for so many pictures
        assert rows[way, 4]["weight_bytes"] == rows[way, 1]["weight_bytes"]
    assert rows["plan, reference", 1]["weight_bytes"] < rows["FP32", 1]["weight_bytes"]
    other = cli("forecast", "--run", timed, "--images", 1, "--size", "32x64")
    assert "No times" in other.out
    assert "How far weight bytes help" in other.out


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (("plan", "--max-time", "soon"), ("'soon'", "0.4x")),
        (("plan", "--max-memory", "15%"), ("'15%'", "2GB")),
        (("plan", "--max-time", "1s", "--policy", "sensitive"), ("--policy sensitive",)),
        (("plan", "--max-time", "1s", "--refine", "2"), ("--refine",)),
        (("forecast", "--images", "some"), ("--images some",)),
        (("forecast", "--images", "0"), ("--images 0",)),
        (("forecast", "--size", "big"), ("--size big", "392x518")),
        (("forecast", "--size", "1000000000x1000000000"), ("--size 1000000000", "1 to 32768")),
        (("kernels", "--seconds", "0"), ("--seconds 0",)),
        (("kernels", "--heads", "nose"), ("'nose'",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused(run: Path, options: tuple[str, ...], fragments: tuple[str, ...]) -> None:
    assert_refused(cli(*options, "--run", run), *fragments)


@pytest.mark.slow
def test_the_front_over_time_is_predicted_and_drawn(timed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More time is never worse, no plan is over its bytes, and every one is at its bound."""
    monkeypatch.setattr("analysis.search.time_front.SIZES", (1.0, 1.5))
    options = ("--points", 2, "--measure", 0, "--axes", "size,time,damage", "--budget", "40%", "--json", "--debug")
    said = the_json(cli("pareto", "--run", timed, *options))
    points = json.loads((timed / "pareto.json").read_text())["time_front"]
    assert points == said["time_front"]
    assert len({point["budget_bytes"] for point in points}) == 2
    for point in points:
        assert point["size_bytes"] <= point["budget_bytes"]
        assert point["bound"] == pytest.approx(point["damage"], rel=1e-4)
    for budget in {point["budget_bytes"] for point in points}:
        mine = sorted((p["seconds"], p["damage"]) for p in points if p["budget_bytes"] == budget)
        damages = [damage for _, damage in mine]
        assert damages == pytest.approx(sorted(damages, reverse=True), rel=1e-4)
    assert (timed / "pareto_time.png").read_bytes()[:4] == b"\x89PNG"
    assert_refused(cli("pareto", "--run", timed, "--axes", "beauty"), "--axes beauty", "size,time,damage")
