"""Any module: which pictures it is made for, as packages of networks say it."""

from types import SimpleNamespace

import pytest
from torch import nn

from vggtkit.subject import ModuleSubject


@pytest.mark.parametrize(
    ("where", "values", "expected"),
    [
        ("", {}, (518, 14)),
        ("", {"img_size": 64, "patch_size": 2}, (64, 2)),
        ("", {"image_size": 224, "patch_size": 32}, (224, 32)),  # torchvision
        ("config", {"image_size": 224, "patch_size": 16}, (224, 16)),  # transformers
        ("config", {"image_size": [384, 384], "patch_size": (16, 16)}, (384, 16)),
        ("patch_embed", {"img_size": (32, 32), "patch_size": (8, 8)}, (32, 8)),  # timm
        ("config", {"patch_size": 16}, (512, 16)),
        ("config", {"image_size": 230, "patch_size": 16}, (224, 16)),
        ("config", {"image_size": 8, "patch_size": 16}, (16, 16)),
        ("config", {"image_size": (480, 640), "patch_size": (4, 8)}, (518, 14)),
        ("config", {"image_size": None, "patch_size": "16"}, (518, 14)),
        ("config", {"image_size": 0, "patch_size": []}, (518, 14)),
    ],
    ids=str,
)
def test_sizes_are_those_that_the_model_states(
    where: str, values: dict[str, object], expected: tuple[int, int]
) -> None:
    """Whole patches always, so that scenes can be made."""
    model = nn.Linear(2, 2)
    for name, value in values.items() if not where else ((where, SimpleNamespace(**values)),):
        setattr(model, name, value)
    sizes = ModuleSubject(model).picture_sizes
    assert sizes == expected
    assert sizes[0] % sizes[1] == 0
