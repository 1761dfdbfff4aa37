"""The training loop in miniature: a few steps on a fake clock."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training import train as training
from training.probes import Probes
from training.train import (
    FINAL_SHARE,
    HEADS,
    MATCH_SHARE,
    PAIRS_SHARE,
    PEAK_RATE,
    WARMUP_SHARE,
    Training,
    batch_of,
    fresh,
    learning_rate,
    steady,
    step_losses,
    train,
)
from vggtkit.scenes.synthetic import render_batch

TRUNK = {"match", "displacement", "coarse_points", "coarse_depth", "camera", "relative"}


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
def test_batches_differ_by_step_and_seed_and_come_again() -> None:
    first, again, next_step, next_seed = (
        batch_of(step, seed, 0.0)["images"] for step, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert first.shape == (1, 2, 3, 64, 64)
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)
    assert not torch.equal(first, next_seed)


def test_views_grow_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step sees about the same number of pictures."""
    monkeypatch.setattr(training, "FRAMES_PER_STEP", 12)
    shapes = [batch_of(step, 0, share)["images"].shape[:2] for share in (0.0, PAIRS_SHARE) for step in range(4)]
    assert shapes == [(6, 2)] * 4 + [(6, 2), (4, 3), (3, 4), (3, 4)]


@pytest.mark.usefixtures("micro")
@torch.no_grad()
@pytest.mark.parametrize(
    ("head", "names"),
    [(None, set()), ("depth", {"depth"}), ("points", {"points"}), ("track", {"track", "visibility", "feature"})],
)
def test_heads_take_turns_beside_the_trunk(head: str | None, names: set[str]) -> None:
    model = fresh(0)
    found = step_losses(model, Probes(model.config), batch_of(0, 0, 0.0), head)
    assert found.keys() == TRUNK | names
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(value.isfinite() for value in found.values())


@pytest.mark.usefixtures("micro")
def test_the_trunk_comes_first_and_then_every_head(tmp_path: Path) -> None:
    run = Training(fresh(0), tmp_path)
    names = [run.step(0, share)[0].keys() - TRUNK for share in (MATCH_SHARE - 0.01, *[MATCH_SHARE] * len(HEADS))]
    assert names[0] == set()
    assert set.union(*names) == {"depth", "points", "track", "visibility", "feature"}


@pytest.mark.slow
@pytest.mark.usefixtures("micro")
def test_training_writes_a_checkpoint_and_resumes_from_it(tmp_path: Path) -> None:
    """Two steps; then none, which must keep the weights; then, pretending that it is step 48, two more and a log."""
    train(tmp_path, steps(2), 0, fresh(0))
    first = checkpoint(tmp_path)
    assert first["progress"] == {"step": 2, "scenes": 2, "seconds": 2.0}
    moved = [not torch.equal(first["model"][name], value) for name, value in fresh(0).state_dict().items()]
    assert sum(moved) > len(moved) / 2

    train(tmp_path, steps(2), 0, fresh(0))
    kept = checkpoint(tmp_path)
    assert kept["progress"] == first["progress"]
    assert all(torch.equal(kept["model"][name], value) for name, value in first["model"].items())

    kept["progress"]["step"] = 48
    torch.save(kept, tmp_path / "checkpoint.pt")
    train(tmp_path, steps(4), 0, fresh(0))
    last = checkpoint(tmp_path)
    assert last["progress"] == {"step": 50, "scenes": 4, "seconds": 4.0}
    assert max(state["step"] for state in last["optimizer"]["state"].values()) == 4  # its moments came along
    assert not (tmp_path / "checkpoint.part").exists()
    (row,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert row["step"] == 50
    assert row["rate_scenes"] == 1
    assert row.keys() >= {"camera", "match", "relative", "gradient"}


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
        train(tmp_path, steps(5), 0, fresh(0))
    assert checkpoint(tmp_path)["progress"]["step"] == 2


@pytest.mark.usefixtures("micro")
def test_a_step_without_a_finite_gradient_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.WEIGHTS, "camera", float("nan"))
    train(tmp_path, steps(1), 0, fresh(0))
    found, start = checkpoint(tmp_path)["model"], fresh(0)
    steady(start)  # as training begins
    assert all(torch.equal(found[name], value) for name, value in start.state_dict().items())


@pytest.mark.usefixtures("micro")
def test_the_average_follows_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two steps it is the weighted mean of the three states of a weight."""
    monkeypatch.setattr(training, "AVERAGE_DECAY", 0.75)
    run, name = Training(fresh(0), tmp_path), "camera_head.pose_branch.fc2.weight"
    states = [run.model.state_dict()[name].clone()]
    for _ in range(2):
        run.step(0, 0.5)
        states.append(run.model.state_dict()[name].clone())
    expected = 0.75 * (0.75 * states[0] + 0.25 * states[1]) + 0.25 * states[2]
    torch.testing.assert_close(run.averaged[name], expected)


@pytest.mark.usefixtures("micro")
def test_the_tracker_stays_without_sines_of_displacements(tmp_path: Path) -> None:
    """The published embedding stands first in the tracker's input: sine and cosine of x, then of y."""
    run = Training(fresh(0), tmp_path)
    for _ in range(len(HEADS)):
        run.step(0, MATCH_SHARE)
    for weight in (
        run.model.track_head.tracker.updateformer.input_transform.weight,
        run.averaged["track_head.tracker.updateformer.input_transform.weight"],
    ):
        assert not weight[:, : run.model.config.track_features].any()
        assert weight[:, run.model.config.track_features :].all()
        torch.testing.assert_close(weight.sum(1), torch.zeros(len(weight)), rtol=0, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_without_sines_rounding_errors_do_not_move_tracks() -> None:
    """One layer's weight changes by a millionth; tracks answer by orders of magnitude less."""
    batch = render_batch(1, 3, (64, 64), generator_seed=3)
    moved = []
    for model in (loud := fresh(0).eval(), fresh(0).eval()):
        if model is not loud:
            steady(model)
        tracks = []
        for factor in (1.0, 1 + 1e-6):
            model.aggregator.patch_embed.blocks[0].attn.qkv.weight.mul_(factor)
            tracks.append(model(batch["images"], batch["query_points"])["track"])
        moved.append(float((tracks[1] - tracks[0]).square().mean()))
    assert moved[1] < 1e-3 * moved[0]


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    values = [torch.full((2, 3), float(rank)), torch.tensor([4.0 * rank])]
    training.average_(values)
    images = batch_of(0, 0, 0.5)["images"]
    torch.save({"values": values, "images": images}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_a_step(tmp_path: Path) -> None:
    """Each renders half of the scenes, other ones, and both end with the mean of what they bring."""
    torch.multiprocessing.spawn(_worker, (tmp_path,), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for found in (one, other):
        torch.testing.assert_close(found["values"], [torch.full((2, 3), 0.5), torch.tensor([2.0])])
    assert len(one["images"]) == len(other["images"]) == len(batch_of(0, 0, 0.5)["images"]) / 2
    assert not torch.equal(one["images"], other["images"])
