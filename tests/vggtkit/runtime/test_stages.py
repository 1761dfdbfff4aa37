"""Seconds by stage."""

import time

import pytest
import torch
from torch import nn

from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.runtime.stages import REST, clocked, stages
from vggtkit.subject import VGGTSubject, subject_of


class Sleeping(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.weight = seconds, nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x


def test_every_stage_has_its_own_time_and_the_rest_is_what_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(Sleeping(0.02), Sleeping(0.02), Sleeping(0.05)).eval()
    subject = subject_of(model)
    monkeypatch.setattr(subject, "segments", lambda: {"blocks.0": model[0], "blocks.1": model[1], "head": model[2]})
    with clocked(subject) as seconds:
        begin = time.perf_counter()
        model(torch.ones(1))
        time.sleep(0.03)
        total = time.perf_counter() - begin
    assert list(seconds) == ["blocks", "head", REST]
    assert seconds["blocks"] >= 0.04
    assert seconds["head"] >= 0.05
    assert seconds[REST] >= 0.03
    assert sum(seconds.values()) == pytest.approx(total, abs=0.02)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model)


def test_stages_of_a_vggt(tiniest_config: VGGTConfig) -> None:
    model = VGGT(tiniest_config)
    parts = stages(VGGTSubject(model))
    assert list(parts) == [
        "patch embedding", "frame blocks", "global blocks", "camera head", "depth head", "point head", "track head",
    ]  # fmt: skip
    assert parts["frame blocks"] == list(model.aggregator.frame_blocks)
