"""What a source is, from wherever it is named, and the config beside the weights."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from vggtkit.model.loading import load_vggt, resolve_source
from vggtkit.model.sources import local_weights

Refused = Callable[[str | Path], str]


@pytest.mark.parametrize("written", ["./net", "net", "../{}/net", "net/model.safetensors"])
def test_a_relative_path_means_the_same_from_another_folder(
    plain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    monkeypatch.chdir(plain.parent)
    name = resolve_source(written.format(plain.parent.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Path(name).is_absolute()
    assert ".." not in name
    load_vggt(name)


def test_what_is_no_path_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("tiny", "vggt-1b"):  # presets go before folders of that name
        (tmp_path / folder).mkdir()
    for source in ("tiny", "vggt-1b", "facebook/VGGT-1B", "package.module:build", "./absent", "/absent"):
        assert resolve_source(source) == source


def test_a_link_keeps_its_name(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain.parent)
    Path("latest").symlink_to(plain)
    assert resolve_source("latest") == str(plain.parent / "latest")


def test_weights_are_those_of_the_usual_name_else_the_only_ones(net: Path) -> None:
    assert local_weights(net) is None
    for name in ("only.pt", "pytorch_model.bin.index.json", "model.safetensors.index.json", "model.safetensors"):
        (net / name).touch()
        assert local_weights(net) == net / name
    assert local_weights(net / "only.pt") == net / "only.pt"


@pytest.mark.parametrize("name", ["x.ckpt", "x.bin", "model.safetensors.index.json", "./x\n\x1b[2J"])
def test_an_absent_path_is_said_to_be_absent(tmp_path: Path, refused: Refused, name: str) -> None:
    assert refused(tmp_path / name).endswith(": no such file or folder")


@pytest.mark.parametrize("name", ["", "x" * 5000, "a/" + "b" * 300, "a b/c\x1b[2J", "a\nb"])
def test_names_that_nothing_can_have_are_one_line(
    refused: Refused, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert refused(name).startswith("--model")
    assert len(refused(name)) < 700


def test_a_config_with_a_byte_order_mark_is_read(plain: Path) -> None:
    path = plain / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    load_vggt(plain)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe{\x00}\x00", "not a readable config"),
        (b"version https://git-lfs.github.com/spec/v1", "not valid JSON"),
        (b" " * 2**21, "are no config, the limit is"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"_a": ' * 1000 + b"1" + b"}" * 1000, "nested too deeply"),
    ],
    ids=["utf-16", "lfs", "huge", "open lists", "nested"],
)
def test_a_config_that_is_none_is_refused(plain: Path, refused: Refused, content: bytes, words: str) -> None:
    (plain / "config.json").write_bytes(content)
    text = refused(plain)
    assert text.startswith(f"{plain / 'config.json'}: ")
    assert words in text
