"""The training loop in miniature: a few steps on a fake clock."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scenes.synthetic import render_batch
from training import train as training
from training.train import (
    BFLOAT16_SHARE,
    FINAL_SHARE,
    PEAK_RATE,
    SINGLE_SHARE,
    WARMUP_SHARE,
    batch_of,
    fresh,
    learning_rate,
    step_losses,
    train,
)


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures a step, and a clock that goes on by a second whenever it is looked at: a step takes one second."""
    monkeypatch.setattr(training, "VIEWS", (2,))
    monkeypatch.setattr(training, "FRAMES_PER_STEP", 2)
    ticks = itertools.count()
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def checkpoint(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def steps(count: int) -> float:
    """Minutes that are so many steps."""
    return count / 60


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_fresh_network_starts_around_the_identity(seed: int) -> None:
    """Before any training all cameras look roughly the first one's way, with a field of view near a radian."""
    images = render_batch(2, 3, (64, 64), generator_seed=1)["images"]
    pose = fresh(seed).eval()(images)["pose_enc"]
    quaternion = torch.nn.functional.normalize(pose[..., 3:7], dim=-1)
    assert (2 * quaternion[..., 3].arccos()).rad2deg().max() < 80
    torch.testing.assert_close(pose[..., :3], torch.zeros(2, 3, 3), rtol=0, atol=0.6)
    torch.testing.assert_close(pose[..., 7:], torch.ones(2, 3, 2), rtol=0, atol=0.3)


def test_fresh_network_is_that_of_its_seed() -> None:
    first, again, other = (dict(fresh(seed).named_parameters()) for seed in (0, 0, 1))
    name = "aggregator.camera_token"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_learning_rate_rises_then_falls() -> None:
    shares = [i / 1000 for i in range(1001)]
    rates = [learning_rate(share) for share in shares]
    peak = rates.index(max(rates))
    assert shares[peak] == pytest.approx(WARMUP_SHARE, abs=0.002)
    assert max(rates) == pytest.approx(PEAK_RATE, rel=0.05)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(FINAL_SHARE * PEAK_RATE)


@pytest.mark.usefixtures("micro")
@pytest.mark.parametrize(("share", "shape"), [(0.0, (2, 1, 3, 64, 64)), (SINGLE_SHARE, (1, 2, 3, 64, 64))])
def test_batches_differ_by_step_and_seed_and_come_again(share: float, shape: tuple[int, ...]) -> None:
    first, again, next_step, next_seed = (
        batch_of(step, seed, share)["images"] for step, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert first.shape == shape
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)
    assert not torch.equal(first, next_seed)


@pytest.mark.usefixtures("micro")
def test_single_pictures_train_depth_and_points_alone() -> None:
    model, single, several = fresh(0), batch_of(0, 0, 0.0), batch_of(0, 0, SINGLE_SHARE)
    dense, every = {"depth", "points"}, {"depth", "points", "camera", "track", "visibility"}
    with torch.no_grad():
        assert step_losses(model, single, tracks=True, bfloat16=True).keys() == dense
        assert step_losses(model, several, tracks=False, bfloat16=False).keys() == dense | {"camera"}
        found = step_losses(model, several, tracks=True, bfloat16=True)
    assert found.keys() == every
    assert {value.dtype for value in found.values()} == {torch.float32}


@pytest.mark.usefixtures("micro")
def test_training_writes_a_checkpoint_and_resumes_from_it(tmp_path: Path) -> None:
    """Two steps; then none, which must keep the weights; then, pretending that it is step 48, two more and a log."""
    train(tmp_path, steps(2), seed=0)
    first = checkpoint(tmp_path)
    assert first["progress"] == {"step": 2, "scenes": 3, "seconds": 2.0}
    moved = [not torch.equal(first["model"][name], value) for name, value in fresh(0).state_dict().items()]
    assert sum(moved) > len(moved) / 2

    train(tmp_path, steps(2), seed=0)
    kept = checkpoint(tmp_path)
    assert kept["progress"] == first["progress"]
    assert all(torch.equal(kept["model"][name], value) for name, value in first["model"].items())

    kept["progress"]["step"] = 48
    torch.save(kept, tmp_path / "checkpoint.pt")
    train(tmp_path, steps(4), seed=0)
    last = checkpoint(tmp_path)
    assert last["progress"] == {"step": 50, "scenes": 5, "seconds": 4.0}
    assert max(state["step"] for state in last["optimizer"]["state"].values()) == 4  # its moments came along
    assert not (tmp_path / "checkpoint.part").exists()
    (row,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert row["step"] == 50
    assert row["rate_scenes"] == 5 / 4
    assert row.keys() >= {"camera", "depth", "points", "track", "visibility", "gradient"}


@pytest.mark.usefixtures("micro")
def test_a_long_run_saves_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its third step, it has what the second left."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 4)
    render = training.render_batch

    def killed(*args: object, **options: object) -> object:
        if options["generator_seed"] == 2:
            raise KeyboardInterrupt
        return render(*args, **options)

    monkeypatch.setattr(training, "render_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, steps(5), seed=0)
    assert checkpoint(tmp_path)["progress"]["step"] == 2


@pytest.mark.usefixtures("micro")
def test_a_step_without_a_finite_gradient_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.WEIGHTS, "depth", float("nan"))
    train(tmp_path, steps(1), seed=0)
    found = checkpoint(tmp_path)["model"]
    assert all(torch.equal(found[name], value) for name, value in fresh(0).state_dict().items())


@pytest.mark.usefixtures("micro")
def test_the_last_fifth_is_full_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autocast, enabled = torch.autocast, []

    def spy(device: str, dtype: torch.dtype, **options: bool) -> torch.autocast:
        enabled.append(options["enabled"])
        return autocast(device, dtype, **options)

    monkeypatch.setattr(torch, "autocast", spy)
    train(tmp_path, steps(5), seed=0)
    assert enabled == [step / 5 < BFLOAT16_SHARE for step in range(5)]
