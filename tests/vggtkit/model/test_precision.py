"""Mixed precision: the trunk in 16 bits and the heads in FP32, with the weights that are there at the moment."""

import pytest
import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.model import VGGT, pick_dtype
from vggtkit.subject import subject_of


@torch.no_grad()
def test_the_trunk_alone_computes_in_bfloat16(small_model: VGGT) -> None:
    seen: dict[str, torch.dtype] = {}
    names = ("aggregator.frame_blocks.0.attn.qkv", "depth_head.projects.0", "camera_head.embed_pose")
    for name in names:
        small_model.get_submodule(name).register_forward_hook(
            lambda _m, _a, output, name=name: seen.update({name: output.dtype})
        )
    images = torch.rand(2, 3, 28, 28)
    exact = small_model(images)
    with subject_of(small_model).computing_in(torch.bfloat16):
        found = small_model(images)
    assert list(seen.values()) == [torch.bfloat16, torch.float32, torch.float32]
    for name in ("depth", "pose_enc", "world_points"):
        value, reference = found[name], exact[name]
        assert isinstance(value, Tensor)
        assert value.dtype == torch.float32
        assert not value.equal(reference)
        torch.testing.assert_close(value, reference, rtol=0.1, atol=0.05 * float(reference.abs().max()))
    assert small_model(images)["depth"].equal(exact["depth"])


@pytest.mark.parametrize("is_vggt", [True, False])
def test_a_weight_that_is_replaced_in_between_is_the_one_used(small_model: VGGT, is_vggt: bool) -> None:
    """Autocast would otherwise keep the rounded copy of the one before."""
    model = small_model if is_vggt else nn.Sequential(nn.Linear(28, 4))
    weight = model.aggregator.frame_blocks[0].attn.qkv.weight if isinstance(model, VGGT) else model[0].weight

    def output() -> Tensor:
        found = model(torch.ones(1, 3, 28, 28))
        return found["depth"] if isinstance(found, dict) else found

    with subject_of(model).computing_in(torch.bfloat16):
        before = output()
        weight.data = 2 * weight.data
        assert not output().equal(before)


def test_precisions_by_name_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for capability, expected in ((8, torch.bfloat16), (7, torch.float16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, major=capability: (major, 0))
        assert pick_dtype("auto", cuda) == expected
    assert pick_dtype("fp32", cuda) == torch.float32
    with pytest.raises(InputError, match="--dtype int8"):
        pick_dtype("int8", cuda)
    with pytest.raises(InputError, match="--dtype fp16"):
        pick_dtype("fp16", torch.device("cpu"))
