"""A training run as a network in a folder."""

import json
from pathlib import Path

import torch

from training.export import TRAINING_LOG, export
from training.finetune import begin
from vggtkit.model.config import BUNDLED, PRESETS
from vggtkit.model.loading import load_vggt


def test_the_running_average_is_what_is_shipped(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", 0)
    name = "camera_head.pose_branch.fc2.bias"
    run.averaged[name] += 0.5
    run.save()
    figures = export(tmp_path / "run", 1, tmp_path / "out")
    shipped = load_vggt(str(tmp_path / "out"))
    assert shipped.config == PRESETS["tiny"]
    torch.testing.assert_close(shipped.state_dict()[name], run.averaged[name].half().float())
    assert not torch.allclose(shipped.state_dict()[name], run.model.state_dict()[name])
    facts = json.loads((tmp_path / "out" / "held_out.json").read_text())
    assert facts["held_out"] == figures
    assert facts["scenes"] == 1


def test_a_share_of_a_run_lies_between_it_and_what_it_began_with(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", 0)
    name = "camera_head.pose_branch.fc2.bias"
    before = load_vggt("tiny").state_dict()[name].clone()
    run.averaged[name] = before + 0.5
    run.save()
    export(tmp_path / "run", 1, tmp_path / "out", share=0.6)
    shipped = load_vggt(str(tmp_path / "out")).state_dict()
    torch.testing.assert_close(shipped[name], before + 0.3, atol=1e-3, rtol=0)
    assert json.loads((tmp_path / "out" / "held_out.json").read_text())["share"] == 0.6
    assert (tmp_path / "out" / TRAINING_LOG).read_bytes() == (BUNDLED / TRAINING_LOG).read_bytes()  # no step was logged
