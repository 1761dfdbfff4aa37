"""Packed files that were changed, cut, or are something else: refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixedprec import uniform_assignment
from mixedprec.checkpoint import (
    load_quantized,
    read_info,
    save_quantized,
)
from tests.mixedprec.editing import edited
from vggtkit.core.errors import InputError
from vggtkit.model.config import VGGTConfig
from vggtkit.model.vggt import VGGT
from vggtkit.quant import find_layers

Run = Callable[[VGGT], dict[str, Tensor]]


def change_formats(metadata: dict[str, str], change: Callable[[dict[str, str]], object]) -> None:
    formats = json.loads(metadata["formats"])
    change(formats)
    metadata |= {"formats": json.dumps(formats), "executions": "-" * len(formats)}


LAYER, WEIGHT = "camera_head.embed_pose", "camera_head.embed_pose.weight"
CODES, SCALES = f"{WEIGHT}.codes", f"{WEIGHT}.scales"
TAMPERED: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, str]], object], str]] = {
    "no-metadata": (lambda _, m: m.clear(), "not a quantised checkpoint; load it with --model"),
    "version": (lambda _, m: m.update(schema_version="9"), "schema version is 9, this tool reads 4"),
    "no-executions": (lambda _, m: m.pop("executions"), "'executions' in the header is no text of a letter of -fbir"),
    "executions-cut": (lambda _, m: m.update(executions=m["executions"][1:]), "'executions' in the header is no text"),
    "executions-unknown": (lambda _, m: m.update(executions="x" * len(m["executions"])), "letter of -fbir a layer"),
    "executions-changed": (
        lambda _, m: m.update(executions="b" * len(m["executions"])),
        "its digest is not that of its content",
    ),
    "no-keep": (lambda _, m: m.pop("keep"), "'keep' is missing in the header"),
    "keep": (lambda _, m: m.update(keep="fp8"), "keep is 'fp8'"),
    "other-keep": (lambda _, m: m.update(keep="fp32"), "is torch.float16 of shape .*, must be torch.float32"),
    "config-json": (lambda _, m: m.update(config="{"), "config in the header: not valid JSON"),
    "config-key": (lambda _, m: m.update(config='{"size": 3}'), "unknown key 'size'"),
    "config-impossible": (
        lambda _, m: m.update(config=m["config"].replace('"num_heads":2', '"num_heads":0')),
        "config in the header: num_heads must be a whole number, at least 1; found 0",
    ),
    "config-of-another": (lambda _, m: m.update(config="{}"), "layers have no format"),
    "formats-json": (lambda _, m: m.update(formats="[1]"), "'formats' in the header is no JSON object"),
    "formats-type": (
        lambda _, m: change_formats(m, lambda f: f.update({LAYER: 4})),
        f"the format of '{LAYER}' is 4",
    ),
    "unknown-format": (
        lambda _, m: change_formats(m, lambda f: f.update({LAYER: "int5"})),
        "unknown format 'int5'",
    ),
    "layer-missing": (lambda _, m: change_formats(m, lambda f: f.pop(LAYER)), f"no format, first '{LAYER}'"),
    "layer-unknown": (
        lambda _, m: change_formats(m, lambda f: f.update({"tail": "fp16"})),
        "not in the model, first 'tail'",
    ),
    "format-with-more": (
        lambda _, m: change_formats(m, lambda f: f.update({LAYER: "int8_per_channel_asym"})),
        f"1 tensors are missing, the first is {WEIGHT}.zero_points",
    ),
    "other-format": (
        lambda _, m: change_formats(m, lambda f: f.update({LAYER: "int8_per_channel_sym"})),
        f"{WEIGHT}: codes of a int8_per_channel_sym weight are .*, must be",
    ),
    "tensor-missing": (lambda t, _: t.pop(SCALES), f"1 tensors are missing, the first is {SCALES}"),
    "tensor-unexpected": (
        lambda t, _: t.update(extra=torch.ones(1)),
        "1 tensors are unexpected, the first is extra",
    ),
    "codes-cut": (
        lambda t, _: t.update({CODES: t[CODES][:-1].clone()}),
        f"{WEIGHT}: codes of a int4_group_32",
    ),
    "scale-nan": (lambda t, _: t[SCALES].fill_(torch.nan), f"{WEIGHT}: scales .* not all finite"),
    "kept-shape": (
        lambda t, _: t.update({f"{LAYER}.bias": t[f"{LAYER}.bias"][:-1].clone()}),
        f"{LAYER}.bias is torch.float16 of shape .*, must be",
    ),
    "kept-nan": (lambda t, _: t[f"{LAYER}.bias"].fill_(torch.nan), f"{LAYER}.bias contains NaN or Inf"),
}


@pytest.fixture(scope="module")
def written(small_config: VGGTConfig, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound file, for spoiling."""
    path = tmp_path_factory.mktemp("written") / "model.safetensors"
    model = VGGT(small_config)
    save_quantized(model, uniform_assignment(find_layers(model), "int4_group_32"), path)
    return path.read_bytes()


@pytest.mark.usefixtures("spoken_in_options")
@pytest.mark.parametrize(("edit", "message"), TAMPERED.values(), ids=TAMPERED)
def test_tampered_file_is_refused_in_one_line(
    written: bytes, tmp_path: Path, edit: Callable[[dict[str, Tensor], dict[str, str]], None], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(written)
    edited(path, edit)
    with pytest.raises(InputError, match=message) as caught:
        load_quantized(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept_bytes", [0, 7, 8, 1000, 300_000, -1])
def test_truncated_file_is_refused(written: bytes, tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(written[:kept_bytes])
    with pytest.raises(InputError, match="not a complete safetensors file") as caught:
        load_quantized(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all, but long enough", b"\xff" * 64])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a complete safetensors file"):
        read_info(path)


def test_absent_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.safetensors: no such file.*export"):
        load_quantized(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="no such file"):
        load_quantized(tmp_path)
