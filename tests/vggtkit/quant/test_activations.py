"""Rounded activations against a plain writing in numpy, and against what the integer kernels are given."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vggtkit.core.errors import InputError
from vggtkit.quant.activations import ACTIVATION_FORMATS, INT8_TOKEN, round_activations
from vggtkit.runtime.kernels import quantize_rows


@given(arrays(np.float32, (3, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_int8_per_token_is_what_the_kernels_multiply(values: np.ndarray) -> None:
    codes, scales = quantize_rows(torch.from_numpy(values))
    assert round_activations(torch.from_numpy(values), INT8_TOKEN).equal(codes * scales)


@pytest.mark.parametrize("key", [key for key, form in ACTIVATION_FORMATS.items() if not form.is_shared])
@pytest.mark.parametrize("channels", [128, 300])
def test_each_token_or_block_has_a_scale_of_its_own(key: str, channels: int) -> None:
    x = torch.randn(2, 4, channels, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, channels)
    form = ACTIVATION_FORMATS[key]
    expected = np.empty(x.shape)
    for start in range(0, channels, form.block_size or channels):
        part = x[..., start : start + (form.block_size or channels)].double().numpy()
        scale = np.abs(part).max(-1, keepdims=True) / form.largest
        expected[..., start : start + part.shape[-1]] = np.rint(part / scale) * scale
    np.testing.assert_allclose(round_activations(x.double(), key).numpy(), expected, rtol=1e-12)
    assert round_activations(x, key).dtype == torch.float32


def test_all_tokens_share_a_scale_per_tensor() -> None:
    x = torch.randn(2, 4, 30, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 30)
    values = x.double().numpy()
    scale = np.abs(values).max() / 127
    found = round_activations(x.double(), "int8_tensor")
    np.testing.assert_allclose(found, np.rint(values / scale) * scale, rtol=1e-12)
    assert not round_activations(torch.zeros(2, 3), "int8_tensor").any()


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(InputError, match="int4_token"):
        round_activations(torch.ones(1, 2), "int5_token")
