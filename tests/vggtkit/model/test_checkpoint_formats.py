"""The files that users have: every one gives the same network, or one line that says what it is."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vggtkit.model.loading import architecture, load_vggt

State = dict[str, Tensor]
Refused = Callable[[str | Path], str]

OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
SAVED: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "another key": lambda state: {"generator": state, "epoch": 3},
    "two levels": lambda state: {"ema": {"shadow": state}, "step": 1},
    "trainer": lambda state: {"steps": {"train": 9}, "optimizer": [OPTIMIZER], "model": state, "scaler": None},
    "data parallel": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    "lightning": lambda state: {"state_dict": {f"net.vggt.{name}": value for name, value in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "part compiled": lambda state: {name.replace("tor.", "tor._orig_mod.", 1): v for name, v in state.items()},
    "averaged": lambda state: {"model": {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in state.items()}},
    "average beside": lambda state: {
        "model": state,
        "ema": {"n_averaged": torch.tensor(3)} | {f"module.{k}": v + 1 for k, v in state.items()},
    },
    "parameters": lambda state: {name: torch.nn.Parameter(value) for name, value in state.items()},
    "arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=1e-4, output=Path("runs"))},
    "numpy": lambda state: {"model": state, "loss": np.float64(0.1), "seen": np.arange(4)},
}


def assert_loads_as(source: Path, state: State) -> list[str]:
    """The same numbers under the same names, by both ways in; what was said on the way."""
    said: list[str] = []
    model = load_vggt(source, say=said.append)
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert architecture(source).config == model.config
    return said


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", SAVED)
def test_whatever_torch_saved_gives_the_same_network(
    net: Path, tiniest_state: State, kind: str, is_legacy: bool
) -> None:
    path = net / "checkpoint.pth"
    torch.save(SAVED[kind](tiniest_state), path, _use_new_zipfile_serialization=not is_legacy)
    said = assert_loads_as(net, tiniest_state)
    assert bool(said) == (kind not in ("bare", "parameters"))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("state_dict", "the weights are those under 'state_dict'"),
        ("two levels", "the weights are those under 'ema > shadow'"),
        ("lightning", "taken off the names of all tensors: net. vggt."),
        ("compiled", "taken off the names of all tensors: _orig_mod."),
        ("arguments", "no code of theirs is run (argparse.Namespace, pathlib.PosixPath)"),
    ],
)
def test_what_was_done_is_said(net: Path, tiniest_state: State, kind: str, sentence: str) -> None:
    torch.save(SAVED[kind](tiniest_state), net / "checkpoint.pth")
    said: list[str] = []
    load_vggt(net, say=said.append)
    assert any(line == f"{net / 'checkpoint.pth'}: {sentence}" or line.endswith(sentence) for line in said), said


@pytest.mark.parametrize(
    "name", ["model.ckpt", "pytorch_model.bin", "anything.pt", "weights.safetensors", "M.SafeTensors", "M.PT"]
)
def test_the_content_tells_the_format_not_the_name(net: Path, tiniest_state: State, name: str) -> None:
    save_file({f"model.{key}": value for key, value in tiniest_state.items()}, net / name)
    assert assert_loads_as(net, tiniest_state) == [f"{net / name}: taken off the names of all tensors: model."]


def test_of_several_checkpoints_one_must_be_named(net: Path, tiniest_state: State, refused: Refused) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save(tiniest_state, net / name)
    assert refused(net) == f"--model {net}: 2 checkpoints are there (a.pt, b.pt); name the file itself"
    assert_loads_as(net / "b.pt", tiniest_state)


class TestShards:
    """Weights in several files with an index."""

    @pytest.fixture(params=[".safetensors", ".bin"])
    def index(self, net: Path, tiniest_state: State, request: pytest.FixtureRequest) -> Path:
        suffix, names = request.param, sorted(tiniest_state)
        places = {name: f"part-{i % 3}-of-3{suffix}" for i, name in enumerate(names)}
        for place in set(places.values()):
            part = {name: tiniest_state[name] for name in names if places[name] == place}
            torch.save(part, net / place) if suffix == ".bin" else save_file(part, net / place)
        path = net / ("pytorch_model.bin.index.json" if suffix == ".bin" else "model.safetensors.index.json")
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
        return path

    @pytest.mark.parametrize("by_name", [False, True], ids=["folder", "index"])
    def test_are_read_as_one(self, index: Path, tiniest_state: State, by_name: bool) -> None:
        said = assert_loads_as(index if by_name else index.parent, tiniest_state)
        assert said == [f"{index}: {len(tiniest_state)} tensors read from 3 files"]

    def test_an_absent_file_is_named(self, index: Path, refused: Refused) -> None:
        next(index.parent.glob("part-1-*")).unlink()
        assert "part-1-of-3" in refused(index.parent)
        assert "one of its 3 files, is not there" in refused(index.parent)

    @pytest.mark.parametrize("place", ["../x.safetensors", "/etc/x.bin", "a/x.bin", 3, "notes.txt", "..", "\x1b/.pt"])
    def test_files_elsewhere_are_not_read(self, index: Path, refused: Refused, place: object) -> None:
        index.write_text(json.dumps({"weight_map": {"aggregator.camera_token": place}}))
        assert "which is no file beside it" in refused(index.parent)

    @pytest.mark.parametrize("text", ["{}", "[]", '{"weight_map": 3}', "{", '{"weight_map": {}}', "[" * 100_000])
    def test_a_broken_index_is_refused(self, index: Path, refused: Refused, text: str) -> None:
        index.write_text(text)
        assert "weight_map" in refused(index.parent)

    def test_a_tensor_in_another_file_than_said_is_refused(self, index: Path, refused: Refused) -> None:
        values = json.loads(index.read_text())
        values["weight_map"]["aggregator.elsewhere"] = next(iter(values["weight_map"].values()))
        index.write_text(json.dumps(values))
        assert "does not hold aggregator.elsewhere as the index says" in refused(index.parent)


class TestOtherFiles:
    """What is no checkpoint is said for what it is."""

    @pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5026873496\n", "a Git LFS pointer"),
            (
                b"<!doctype html><html><b>Access</b> is restricted</html>",
                'an HTML page that says "Access is restricted"',
            ),
            (b"\xef\xbb\xbf\n <html><title>403 &amp; more</title>" + 3000 * b"x", 'an HTML page that says "403 & more'),
            (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "AccessDenied"),
            (b"404: Not Found, really", 'text that begins "404: Not Found, really"'),
            (b'{"error": "Repository not found"}', "JSON that begins"),
            (b"", "the file is empty"),
            (b"\x1f\x8b\x08" + bytes(40), "a gzip archive"),
            (b"model.safetensors".ljust(257, b"\0") + b"ustar" + bytes(250), "a tar archive"),
        ],
        ids=["lfs", "html", "html-with-bom", "xml", "text", "json", "empty", "gzip", "tar"],
    )
    def test_are_named(self, net: Path, refused: Refused, name: str, content: bytes, words: str) -> None:
        (net / name).write_bytes(content)
        text = refused(net)
        assert text.startswith(f"{net / name}: not a readable checkpoint (")
        assert words in text

    @pytest.mark.parametrize(
        ("write", "words"),
        [
            (
                lambda path: np.savez(path.with_suffix(""), a=np.ones(3)) or path.with_suffix(".npz").rename(path),
                "a zip archive that torch.save did not write and holds a",
            ),
            (lambda path: torch.jit.save(torch.jit.script(torch.nn.ReLU()), path), "a TorchScript archive"),
            (lambda path: torch.save({"x": 1}, path, pickle_protocol=4), "a pickle of a protocol other than 2"),
        ],
        ids=["npz", "torchscript", "protocol"],
    )
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_other_archives_are_named(
        self, net: Path, refused: Refused, write: Callable[[Path], object], words: str
    ) -> None:
        write(net / "model.pt")
        assert words in refused(net)

    def test_an_archive_whose_list_of_files_is_damaged_is_named(self, net: Path, refused: Refused) -> None:
        path = net / "model.pt"
        torch.save({"x": torch.ones(2)}, path)
        content = path.read_bytes()
        path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\xff"))
        assert "not a readable checkpoint (" in refused(net)

    def test_half_a_file_is_said_to_be_truncated(self, plain: Path, refused: Refused) -> None:
        path = plain / "model.safetensors"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "truncated" in refused(plain)

    def test_a_packed_checkpoint_of_this_tool_is_named(self, net: Path, tiniest_state: State, refused: Refused) -> None:
        save_file(tiniest_state, net / "model.safetensors", metadata={"kind": "vggt-mixedprec quantised checkpoint"})
        text = refused(net)
        assert "a packed checkpoint of this tool" in text
        assert "load_quantized" in text

    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
    def test_integers_where_weights_belong_are_named(
        self, net: Path, tiniest_state: State, refused: Refused, dtype: torch.dtype
    ) -> None:
        name = "aggregator.frame_blocks.0.attn.qkv.weight"
        save_file(tiniest_state | {name: tiniest_state[name].to(dtype)}, net / "model.safetensors")
        assert f"{name} is stored as {str(dtype).removeprefix('torch.')}, where floating-point" in refused(net)

    def test_tensors_without_numbers_are_named(self, net: Path, tiniest_state: State, refused: Refused) -> None:
        name = "aggregator.frame_blocks.0.attn.qkv.weight"
        torch.save(tiniest_state | {name: tiniest_state[name].to("meta")}, net / "model.pt")
        assert f"{name} is stored without its numbers" in refused(net)

    def test_numbers_of_eight_bits_are_said(self, net: Path, tiniest_state: State) -> None:
        name = "aggregator.frame_blocks.0.attn.qkv.weight"
        short = tiniest_state[name].to(torch.float8_e4m3fn)
        save_file(tiniest_state | {name: short}, net / "model.safetensors")
        said = assert_loads_as(net, tiniest_state | {name: short.float()})
        assert said == [
            f"{net / 'model.safetensors'}: 1 tensors are stored as float8_e4m3fn, and taken as they are, unscaled"
        ]

    def test_control_characters_of_names_do_not_reach_the_terminal(
        self, net: Path, tiniest_state: State, refused: Refused
    ) -> None:
        save_file(tiniest_state | {"aggregator.\x1b[31m\nrm": torch.zeros(1)}, net / "model.safetensors")
        assert r"the first is aggregator.\x1b[31m\nrm" in refused(net)
