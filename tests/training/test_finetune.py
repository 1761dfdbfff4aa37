"""Going on in rooms and worlds, in miniature: what steps do, and that a killed run goes on as if it had not been."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training import finetune as module
from training.finetune import (
    COOLING_SHARE,
    FINAL_SHARE,
    PEAK_RATE,
    SIZES,
    VIEWS,
    WARMUP_STEPS,
    Judge,
    Log,
    batch_of,
    begin,
    finetune,
    learning_rate,
    turn_of,
)
from vggtkit.model.loading import load_vggt

STEPS = 4


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small pictures a step and few pictures in a bank; held-out figures and a log every second step."""
    monkeypatch.setattr(module, "PIXELS_PER_STEP", 2 * 16 * 24)
    monkeypatch.setattr(module, "ROOM_SIZE", (16, 24))
    monkeypatch.setattr(module, "SIZES", ((16, 24), (24, 16)))
    monkeypatch.setattr(module, "VIEWS", (2,))
    monkeypatch.setattr(module, "PICTURES", 4)
    monkeypatch.setattr(module, "HELD_OUT_STEPS", 2)
    monkeypatch.setattr(module, "LOG_STEPS", 2)


class Still:
    """A judge that says the same of all weights."""

    def __call__(self, weights: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        assert weights
        return {"rooms": {"auc_30": 0.5, "track_px": math.nan}}


def test_turns_are_those_of_their_step_and_all_kinds_come() -> None:
    turns = [turn_of(step, 0) for step in range(600)]
    assert turns == [turn_of(step, 0) for step in range(600)]
    assert turns != [turn_of(step, 1) for step in range(600)]
    assert sum(turn.rooms for turn in turns) == 300
    assert {turn.size for turn in turns} == set(SIZES)
    assert {turn.views for turn in turns} == set(VIEWS)
    assert {turn.head for turn in turns} == {"depth", "points", "track", None}
    squares = Counter(turn.size for turn in turns if turn.rooms)
    assert squares[64, 64] > 100


def test_the_rate_rises_stays_and_comes_down() -> None:
    steps = 10_000
    rates = [learning_rate(step, steps) for step in range(steps)]
    cooling = round(steps * (1 - COOLING_SHARE))
    assert rates[0] == pytest.approx(PEAK_RATE / WARMUP_STEPS)
    assert set(rates[WARMUP_STEPS:cooling]) == {PEAK_RATE}
    assert rates[cooling:] == sorted(rates[cooling:], reverse=True)
    assert rates[-1] == pytest.approx(FINAL_SHARE * PEAK_RATE, rel=1e-3)
    assert learning_rate(5_000, 100_000) == learning_rate(5_000, steps)  # more steps may be asked for on the way


@pytest.mark.usefixtures("micro")
@pytest.mark.parametrize("step", [0, 1], ids=["rooms", "worlds"])
def test_batches_come_again_and_steps_differ(step: int) -> None:
    first, again, other = (batch_of(number, 0, turn_of(step, 0)) for number in (step, step, step + 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["images"], other["images"])


@pytest.mark.slow
@pytest.mark.usefixtures("micro")
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its fourth step, after a checkpoint: weights, moments and logged steps end as those of a whole run."""
    finetune(begin(tmp_path / "whole", 0), STEPS, 0, Still())

    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", -1.0)  # after every step
    draw = module.batch_of

    def killed(step: int, *rest: object) -> dict[str, Tensor]:
        if step == STEPS - 1:
            raise KeyboardInterrupt
        return draw(step, *rest)

    monkeypatch.setattr(module, "batch_of", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(begin(tmp_path / "killed", 0), STEPS, 0, Still())
    with (tmp_path / "killed" / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "scenes": 4}\n{"ste')  # written after the checkpoint
    monkeypatch.setattr(module, "batch_of", draw)
    finetune(begin(tmp_path / "killed", 0), STEPS, 0, Still())

    one, other = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "killed"))
    for group in ("model", "averaged", "probes"):
        assert all(torch.equal(one[group][name], other[group][name]) for name in one[group])
    assert torch.equal(one["optimizer"]["state"][0]["exp_avg"], other["optimizer"]["state"][0]["exp_avg"])
    assert one["progress"]["scenes"] == other["progress"]["scenes"] == STEPS
    rows = [
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()]
        for n in ("whole", "killed")
    ]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == [0, 2, 2, 4, 4]
    assert rows[0][0] == {"step": 0, "held_out": {"rooms": {"auc_30": 0.5, "track_px": None}}}
    assert rows[1][-1]["held_out"] == rows[0][0]["held_out"]


def test_a_log_is_cut_back_to_a_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 3}\n{"step": 2}\n{"st')
    Log(path, 2).write({"step": 5})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 5}\n'


@pytest.mark.slow
def test_the_judge_knows_the_bundled_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has learnt rooms."""
    monkeypatch.setattr(module, "PICTURES", 12)
    judge = Judge("", scenes=4)
    figures = judge(load_vggt("tiny").state_dict())
    assert figures["rooms"]["auc_30"] > 0.4
    assert figures["rooms"]["depth_abs_rel"] < 0.15
    assert figures.keys() == {"rooms", "worlds"}
