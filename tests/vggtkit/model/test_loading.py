"""Where a network can come from, and what is refused."""

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.model.config import BUNDLED, TINY, VGGTConfig
from vggtkit.model.loading import load_vggt, model_fingerprint
from vggtkit.model.vggt import VGGT

# What the file of facebook/VGGT-1B says: arguments of the reference code, no sizes of ours.
PUBLISHED_CONFIG = '{"img_size": 518, "patch_size": 14, "embed_dim": 1024, "enable_camera": true}'
ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path, small_model: VGGT) -> Path:
    """A network as `load_vggt` wants it."""
    path = tmp_path / "network"
    path.mkdir()
    (path / "config.json").write_text(small_model.config.to_json())
    save_file(small_model.state_dict(), path / "model.safetensors")
    return path


def assert_same_weights(found: VGGT, expected: VGGT) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


def refusal(source: str | Path, weights: str = "pretrained") -> str:
    """The error's text, which is one line."""
    with pytest.raises(InputError) as caught:
        load_vggt(source, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a network's file."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


class TestSources:
    """Folder, files, presets."""

    @pytest.mark.parametrize("as_text", [True, False], ids=["str", "Path"])
    def test_folder(self, folder: Path, small_model: VGGT, as_text: bool) -> None:
        model = load_vggt(str(folder) if as_text else folder)
        assert_same_weights(model, small_model)
        assert model.config == small_model.config
        assert not model.training

    def test_safetensors_file_with_its_config_beside(self, folder: Path, small_model: VGGT) -> None:
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        assert_same_weights(load_vggt(folder / "other.safetensors"), small_model)

    @pytest.mark.parametrize("is_nested", [False, True], ids=["flat", "nested"])
    @pytest.mark.parametrize("suffix", [".pt", ".pth"])
    def test_torch_file(self, folder: Path, small_model: VGGT, suffix: str, is_nested: bool) -> None:
        state = dict(small_model.state_dict())
        path = folder / f"checkpoint{suffix}"
        torch.save({"model": state, "step": 3} if is_nested else state, path)
        assert_same_weights(load_vggt(path), small_model)

    def test_loaded_network_computes_the_same(self, folder: Path, small_model: VGGT) -> None:
        images = torch.rand(2, 3, 28, 28)
        with torch.no_grad():
            found, expected = load_vggt(folder)(images), small_model(images)
        torch.testing.assert_close(found["depth"], expected["depth"], rtol=0, atol=0)

    def test_bundled_tiny_is_float32_in_memory_and_half_on_disk(self) -> None:
        model, path = load_vggt("tiny"), BUNDLED / "model.safetensors"
        assert model.config == TINY
        assert path.stat().st_size < 25_000_000
        assert not any(tensor.is_meta for tensor in model.buffers())
        ours, stored = model.state_dict(), load_file(path)
        for name, tensor in stored.items():
            assert (tensor.dtype, ours[name].dtype) == (torch.float16, torch.float32), name
            assert tensor.isfinite().all(), name
            assert torch.equal(ours[name], tensor.float()), name

    def test_file_without_config_is_taken_for_vggt_1b(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        path = folder / "model.safetensors"
        sizes = "embed_dim is 64 by the shapes of the tensors, but 1024 as in VGGT-1B (no config is there)"
        assert refusal(path).startswith(f"{path}: {sizes}; ")

    def test_published_config_means_the_published_sizes(self, folder: Path) -> None:
        (folder / "config.json").write_text(PUBLISHED_CONFIG)
        assert f"embed_dim is 64 by the shapes of the tensors, but 1024 in {folder / 'config.json'}" in refusal(folder)


class TestRandomWeights:
    """Architectures without a checkpoint."""

    def test_are_the_same_every_time(self, small_config: VGGTConfig, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(small_config.to_json())
        first = load_vggt(tmp_path, weights="random")
        torch.manual_seed(123)
        torch.rand(5)
        assert_same_weights(load_vggt(tmp_path, weights="random"), first)

    def test_leave_the_global_generator_alone(self, folder: Path) -> None:
        before = torch.get_rng_state()
        load_vggt(folder, weights="random")
        assert torch.equal(torch.get_rng_state(), before)

    def test_give_finite_outputs_that_depend_on_the_images(self, folder: Path) -> None:
        model = load_vggt(folder, weights="random")
        with torch.no_grad():
            dark, bright = (model(torch.full((2, 3, 28, 28), level)) for level in (0.1, 0.9))
        assert dark["depth"].isfinite().all()
        assert not torch.equal(dark["depth"], bright["depth"])

    def test_that_do_not_fit_into_memory_are_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vggtkit.model.loading.free_bytes", lambda _: 1_000_000)
        message = refusal(folder, weights="random")
        assert message.endswith("GB of memory, 0.0 GB are free")

    def test_other_words_are_refused(self) -> None:
        assert refusal("tiny", weights="best") == "--weights best: not known; use pretrained or random"


class TestTensorsThatDoNotFit:
    """Loading is strict, and says what is wrong."""

    def test_missing(self, folder: Path) -> None:
        rewrite(folder, lambda state: [state.pop("camera_head.token_norm.bias"), state.pop("depth_head.norm.bias")])
        assert "2 tensors are missing, the first is camera_head.token_norm.bias" in refusal(folder)

    def test_unexpected(self, folder: Path) -> None:
        rewrite(folder, lambda state: state.update({"camera_head.extra": torch.zeros(1)}))
        assert "1 tensors are not of this network, the first is camera_head.extra" in refusal(folder)

    def test_misshapen(self, folder: Path) -> None:
        rewrite(folder, lambda state: state.update({"camera_head.token_norm.bias": torch.zeros(65)}))
        message = refusal(folder)
        assert "camera_head.token_norm.bias has shape [65], the network needs [128]" in message


class TestFilesThatAreNotRead:
    """Broken, hostile or absent files."""

    @pytest.mark.parametrize("kept", [0, 4, 1000, -1], ids=lambda kept: f"first-{kept}")
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_truncated(self, folder: Path, small_model: VGGT, suffix: str, kept: int) -> None:
        path = folder / f"model{suffix}"
        if suffix == ".pt":
            torch.save(small_model.state_dict(), path)
        path.write_bytes(path.read_bytes()[:kept])
        message = refusal(path)
        assert message.startswith(f"{path}: not a readable checkpoint (")
        assert "truncated" in message

    def test_pickled_code_is_not_run(self, folder: Path) -> None:
        trace = folder / "was-here"

        class Hostile:
            def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
                return Path.touch, (trace,)

        torch.save({"model": {"weight": Hostile()}}, folder / "hostile.pt")
        assert "not a readable checkpoint" in refusal(folder / "hostile.pt")
        assert not trace.exists()
        torch.load(folder / "hostile.pt", weights_only=False)
        assert trace.exists()  # it was a live one

    @pytest.mark.parametrize("content", [[1, 2], {"weight": 3}, {"model": {"weight": "text"}}])
    def test_something_else_than_a_state_dict(self, folder: Path, content: object) -> None:
        torch.save(content, folder / "other.pt")
        assert "expected a state dict of tensors" in refusal(folder / "other.pt")

    @pytest.mark.parametrize("name", ["absent", "absent.safetensors", "absent.pt"])
    def test_absent(self, tmp_path: Path, name: str) -> None:
        assert refusal(tmp_path / name) == f"--model {tmp_path / name}: no such file or folder"

    def test_folder_without_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        assert "the folder has no model.safetensors" in refusal(folder)

    @pytest.mark.parametrize("weights", ["pretrained", "random"])
    def test_folder_without_config(self, folder: Path, weights: str) -> None:
        (folder / "config.json").unlink()
        assert refusal(folder, weights) == f"{folder}: no config.json; it tells the sizes of the network"

    @pytest.mark.parametrize("text", ['{"vit_depth": 1, "vit_width": 3}', '{"num_heads": 2, "vit_width": 3}'])
    def test_config_with_an_unknown_key(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        assert f"{folder / 'config.json'}: unknown key 'vit_width'" in refusal(folder)

    def test_unknown_preset(self) -> None:
        message = refusal("vggt-2b")
        assert message.startswith("--model vggt-2b: neither a preset (tiny, vggt-1b)")


class TestFingerprint:
    """Files of a run belong to one set of weights."""

    def test_is_that_of_the_weights_not_of_the_object(self, folder: Path, small_model: VGGT) -> None:
        assert model_fingerprint(load_vggt(folder)) == model_fingerprint(small_model)
        assert len(model_fingerprint(small_model)) == 16

    def test_changes_with_one_bit_of_one_weight(self, small_model: VGGT) -> None:
        before = model_fingerprint(small_model)
        bias = small_model.track_head.tracker.vis_predictor[0].bias
        with torch.no_grad():
            bias.copy_(torch.nextafter(bias, torch.full_like(bias, torch.inf)))
        assert model_fingerprint(small_model) != before

    def test_changes_with_precision(self, small_model: VGGT) -> None:
        assert model_fingerprint(small_model) != model_fingerprint(small_model.half())


class TestHub:
    """Ids of repositories, without a network."""

    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty cache of the hub's client, which is offline."""
        path = tmp_path / "hub"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        return path

    @pytest.fixture
    def cached(self, cache: Path, folder: Path) -> Path:
        """The snapshot of ``someone/small`` as the client lays it out: blobs, snapshots and refs."""
        repository = cache / "models--someone--small"
        snapshot = repository / "snapshots" / COMMIT
        for part in (snapshot, repository / "refs", repository / "blobs"):
            part.mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(folder / name, repository / "blobs" / f"etag-of-{name}")
            (snapshot / name).symlink_to(repository / "blobs" / f"etag-of-{name}")
        return snapshot

    @pytest.mark.usefixtures("cached")
    def test_id_is_found_in_the_cache(self, small_model: VGGT) -> None:
        assert_same_weights(load_vggt("someone/small"), small_model)

    def test_random_weights_need_only_the_config(self, cached: Path, small_config: VGGTConfig) -> None:
        (cached / "model.safetensors").unlink()
        assert load_vggt("someone/small", weights="random").config == small_config
        assert "model.safetensors is not in the local Hugging Face cache" in refusal("someone/small")

    @pytest.mark.usefixtures("cached")
    def test_cache_is_asked_before_the_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a network that nobody answers on, what is cached loads all the same, and says nothing."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", None)
        load_vggt("someone/small")

    @pytest.mark.usefixtures("cache")
    @pytest.mark.parametrize("source", ["someone/else", "vggt-1b"])
    def test_offline_is_one_clear_line(self, source: str) -> None:
        message = refusal(source)
        repository = "facebook/VGGT-1B" if source == "vggt-1b" else source
        assert message.startswith(f"--model {repository}: no such folder, config.json is not in the local")
        assert message.endswith("download it elsewhere and give its folder, or use --weights random")

    @pytest.fixture
    def new_session(self) -> Iterator[None]:
        """Clients before 1.0 keep a session, and whether it is offline."""
        forget = getattr(huggingface_hub.utils, "reset_sessions", lambda: None)
        forget()
        yield
        forget()

    @pytest.mark.usefixtures("cache", "new_session")
    def test_unreachable_hub_fails_at_once_and_quietly(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Left alone, the hub's client asks six times in half a minute and logs each."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        nobody = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        for module in (huggingface_hub.constants, huggingface_hub.file_download):  # before 1.0 a name of the second too
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", nobody, raising=False)
        monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [caplog.handler])
        begun = time.monotonic()
        assert "refused" in refusal("someone/else")
        assert time.monotonic() - begun < 5
        assert caplog.text == ""

    def test_a_download_that_breaks_is_one_line(self, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The client keeps the part that came, so the way out is to run the command again."""
        (cached / "model.safetensors").unlink()
        ask_cache = huggingface_hub.hf_hub_download

        def breaks(repository: str, name: str, *, local_files_only: bool = False) -> str:
            if not local_files_only:
                raise ConnectionError("peer closed connection after 3,000,000,000 of 5,026,367,224 bytes")
            return ask_cache(repository, name, local_files_only=True)

        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", breaks)
        message = refusal("someone/small")
        assert "peer closed connection after 3,000,000,000" in message
        assert "the same command takes up a broken download where it stopped" in message

    @pytest.mark.usefixtures("cache")
    @pytest.mark.parametrize("source", ["some one/else", "someone/no--thing"])
    def test_what_cannot_be_an_id_is_refused(self, source: str) -> None:
        assert f"--model {source}: no such folder" in refusal(source)


MEASURE = """
import sys
from vggtkit.model import load_vggt, model_fingerprint
from vggtkit.core.memory import peak_resident_bytes, resident_bytes
model_fingerprint(load_vggt("tiny"))  # whatever is imported and set up the first time
before = resident_bytes()
model = load_vggt(sys.argv[1])
model_fingerprint(model)  # every weight is read
print(peak_resident_bytes() - before, 4 * sum(parameter.numel() for parameter in model.parameters()))
"""


@pytest.mark.slow
def test_loading_takes_hardly_more_memory_than_the_weights(tmp_path: Path) -> None:
    """In a process of its own, 250 MB of weights: at most 1.1 times as much at any moment."""
    config = replace(TINY, embed_dim=512, vit_depth=8, aggregator_depth=6)
    model = VGGT(config)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config.to_json())
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    peak, weights = map(int, ran.stdout.split())
    assert weights > 200e6
    assert peak < 1.1 * weights
