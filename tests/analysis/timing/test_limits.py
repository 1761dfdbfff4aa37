"""What stages compute, against sums written out by hand."""

import pytest
import torch
from torch import nn

from analysis.timing.limits import Peaks, StageLimit, StageWork, measured_peaks, stage_limits, work_by_stage, works_as
from mixedprec import uniform_assignment
from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.runtime.stages import REST
from vggtkit.scenes import Scene
from vggtkit.subject import ModuleSubject, subject_of


def test_products_and_traffic_of_a_few_layers_are_those_of_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(2), nn.Linear(16, 5)).eval()
    scene = Scene("one", torch.zeros(2, 3, 4, 4), torch.zeros(0, 2))
    subject = ModuleSubject(model)
    work = work_by_stage(subject, scene, {"3": "int8"})
    assert work is not None
    conv, linear = 2 * (2 * 8 * 16) * 27, 2 * (2 * 8 * 5) * 16
    layers = sorted(call for stage in work.values() for call in stage.layers)
    assert layers == [("fp32", conv, 216), ("int8", linear, 80)]
    assert sum(stage.numbers for stage in work.values()) == 2 * (2 * 8 * 16)  # the ReLU reads and writes them
    assert sum(stage.unpacked for stage in work.values()) == 80
    assert sum(stage.attention for stage in work.values()) == 0


def test_attention_of_a_vggt_is_two_products_of_all_pairs(tiniest_config: VGGTConfig) -> None:
    """Per block 4 T^2 dim operations a group of T tokens: a picture in frame blocks, all pictures in global ones."""
    subject, views = subject_of(VGGT(tiniest_config)), 3
    work = work_by_stage(subject, Scene("noise", torch.zeros(views, 3, 32, 32), torch.zeros(1, 2)), {})
    assert work is not None
    tokens = 16 + 1 + tiniest_config.num_register_tokens
    assert work["frame blocks"].attention == views * 4 * tokens**2 * 32
    assert work["global blocks"].attention == 4 * (views * tokens) ** 2 * 32
    per_token = 12 * 32**2  # qkv, proj and the two of the MLP
    assert sum(operations for _, operations, _ in work["frame blocks"].layers) == 2 * views * tokens * per_token
    assert not work[REST].unpacked


def test_a_layer_is_no_faster_than_its_weight_can_be_read() -> None:
    work = {"few tokens": StageWork([("int8", 10.0, 10**6)]), "many": StageWork([("int8", 1e9, 10**6)])}
    found = stage_limits(work, Peaks({"int8": 1e9}, 1e6, 0.0), "int8", packed=True)
    assert [found[stage].seconds for stage in work] == [1.0, 1.0]


def test_formats_decide_what_runs_in_whole_numbers(tiniest_config: VGGTConfig) -> None:
    subject = subject_of(VGGT(tiniest_config))
    formats = uniform_assignment(subject.layers, "int4_two_level_16") | {"aggregator.frame_blocks.0.attn.qkv": "fp16"}
    ways = works_as(subject, formats, Peaks({"int8": 1.0, "bfloat16": 1.0}, 1.0, 0.0))
    assert ways["aggregator.frame_blocks.0.attn.qkv"] == "bfloat16"
    assert ways["aggregator.frame_blocks.0.attn.proj"] == "int8"
    assert ways["aggregator.patch_embed.patch_embed.proj"] == "bfloat16"


def test_peaks_are_measured_of_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.timing.limits.COPIED", 2**16)
    monkeypatch.setattr("analysis.timing.limits.ROWS", 8)
    monkeypatch.setattr("analysis.timing.limits.REPEATS", 1)
    peaks = measured_peaks(None)
    assert peaks.operations.keys() == {"fp32"}
    assert min(peaks.operations["fp32"], peaks.bytes, peaks.unpacking) > 0
    assert StageLimit(1.0, 2.0, 3.0, 4.0).seconds == 10
