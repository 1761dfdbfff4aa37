"""The model of a run is the profiled one, in the profile's precision."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from analysis.steps.run_folder import subject_of_run
from sensitivity import Profile
from vggtkit.model import VGGT, load_vggt, model_fingerprint
from vggtkit.subject import subject_of


@pytest.mark.parametrize(
    ("profiled", "expected"),
    [
        ("torch.float32", torch.float32),
        ("torch.bfloat16", torch.bfloat16),
        ("torch.float16", torch.float32),  # of a GPU; processors do not compute in it
        (None, torch.float32),  # of a profile that does not say
    ],
)
def test_precision_is_that_of_the_profile(model_folder: Path, profiled: str | None, expected: torch.dtype) -> None:
    source = str(model_folder)
    loaded = load_vggt(source)
    facts = {
        "model": source,
        "weights": "trained",
        "model_fingerprint": model_fingerprint(loaded),
        "config": subject_of(loaded).description(),
    }
    profile = SimpleNamespace(
        path=model_folder, layers=(), facts=facts | ({} if profiled is None else {"dtype": profiled})
    )
    subject = subject_of_run(model_folder, cast(Profile, profile), "cpu")
    assert subject.precision == expected
    model = subject.model
    assert isinstance(model, VGGT)
    assert model.trunk_dtype == expected
    seen = []
    block = model.aggregator.get_submodule("frame_blocks.0.mlp.fc1")
    block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        model(torch.rand(2, 3, 2 * model.config.patch_size, 2 * model.config.patch_size))
    assert seen == [expected]
