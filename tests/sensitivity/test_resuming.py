"""Profiles that are ended and go on, alone or in several processes: the same numbers, nothing done twice."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

from sensitivity import Profile
from sensitivity.recorder import SceneRecorder
from tests.sensitivity.conftest import MakeScene, build_model, build_scene
from tests.sensitivity.profiling import SCHEMES, assert_same_numbers, profiled
from vggtkit.core.executors import EXECUTORS, Demand, Executor, Workers, parse_workers
from vggtkit.core.executors.local import Local
from vggtkit.core.journal import Parts
from vggtkit.model import VGGT
from vggtkit.scenes import Scene

STEPS = 2 * (1 + len(SCHEMES) + 1)
"""Of two scenes: FP32, the schemes, damage."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [build_scene(seed, size=(16, 16)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def whole(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """Undisturbed."""
    return profiled(build_model(), scenes, tmp_path_factory.mktemp("whole") / "p.h5")


def interrupt(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_profile_that_is_stopped_after_every_step_has_the_same_numbers(
    small_model: VGGT, scenes: list[Scene], whole: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In FP32, under every scheme, at the damage, of both scenes: each start does one step, and none of another's."""
    save, under, ran = Parts.save, SceneRecorder.under, list[str]()

    def once(parts: Parts, step: str, arrays: Any) -> None:
        save(parts, step, arrays)
        raise KeyboardInterrupt

    def counted(recorder: SceneRecorder, key: str) -> Any:
        ran.append(key)
        return under(recorder, key)

    monkeypatch.setattr(SceneRecorder, "under", counted)
    path, said, done = tmp_path / "p.h5", list[str](), []
    for _ in range(STEPS):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Parts, "save", once)
            profiled(small_model, scenes, path, say=said.append)
        done.append(len(list((tmp_path / "p.h5.parts").glob("*.npz"))))
    assert not path.exists()
    assert done == list(range(1, STEPS + 1))
    assert [line.split()[1] for line in said if line.startswith("resuming")] == list(map(str, range(1, STEPS)))
    assert_same_numbers(whole, profiled(small_model, scenes, path))
    assert ran == [*SCHEMES, *SCHEMES]
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.h5"]


def test_a_profile_that_is_stopped_while_it_is_written_repeats_no_step(
    small_model: VGGT, scenes: list[Scene], whole: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said = tmp_path / "p.h5", list[str]()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sensitivity.profiler.assemble", interrupt)
        profiled(small_model, scenes, path)
    assert not path.exists()
    monkeypatch.setattr(SceneRecorder, "under", interrupt)
    monkeypatch.setattr("sensitivity.profile_steps.RecordedForward.sketch", interrupt)
    assert_same_numbers(whole, profiled(small_model, scenes, path, say=said.append))
    assert said[-1].startswith(f"resuming: {STEPS} of {STEPS} steps")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.slow
def test_two_processes_write_the_numbers_of_one(
    small_model: VGGT, scenes: list[Scene], whole: Profile, tmp_path: Path
) -> None:
    """Steps of a scene go to either process, which runs FP32 for itself where it has not."""
    shared = profiled(small_model, scenes, tmp_path / "p.h5", workers=parse_workers("2"))
    assert_same_numbers(whole, shared)
    assert whole.facts["threads"] == shared.facts["threads"] == 1


class LastFirst(Local):
    """Stands for a cluster whose results come in an order of their own: the last piece first."""

    def __init__(self) -> None:
        super().__init__(1)
        self.workers, self.title = 7, "7 workers far away"

    def run(self, work: Any, pieces: Any, places: Any = None) -> Any:
        yield from reversed(list(super().run(work, pieces, places)))


def test_results_are_merged_in_one_order_and_workers_are_told_of_and_given_the_memory_foreseen(
    small_model: VGGT, scenes: list[Scene], whole: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demands: list[Demand] = []

    def start(_workers: Workers, demand: Demand) -> Executor:
        demands.append(demand)
        return LastFirst()

    monkeypatch.setattr(EXECUTORS, "_values", {**EXECUTORS, "far": start})
    stages: list[str] = []
    said: list[str] = []
    there = profiled(
        small_model, scenes, tmp_path / "p.h5", workers=parse_workers("far"), say=said.append,
        progress=lambda stage, _done, _total: stages.append(stage),
    )  # fmt: skip
    assert_same_numbers(whole, there)
    assert demands == [Demand(memory_bytes=there.facts["expected_peak_bytes"])]
    assert f"about {demands[0].memory_bytes / 1e9:.1f} GB of memory at its peak" in said[0]
    assert sum(stage.endswith(", 7 workers far away") for stage in stages) == STEPS


def test_steps_of_another_profile_are_not_taken(
    small_model: VGGT, make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed; and a leftover of a process that was killed while it wrote."""
    scenes, path, said = [make_scene(0, size=(16, 16))], tmp_path / "p.h5", list[str]()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sensitivity.profile_steps.RecordedForward.sketch", interrupt)
        profiled(small_model, scenes, path, seed=1)
    (tmp_path / "p.h5.parts" / ".0-damage.npz.7.partial").write_bytes(b"half")
    again = profiled(small_model, scenes, path, seed=2, say=said.append)
    assert "started anew" in said[-1]
    assert_same_numbers(profiled(small_model, scenes, tmp_path / "q.h5", seed=2), again)
