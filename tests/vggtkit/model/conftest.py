"""A network as small as can be, its tensors and its folder, for everything that reads checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.model.config import VGGTConfig
from vggtkit.model.loading import architecture, load_vggt
from vggtkit.model.vggt import VGGT


@pytest.fixture(scope="session")
def tiniest_state(tiniest_config: VGGTConfig) -> dict[str, Tensor]:
    """Every tensor of the tiniest VGGT, random."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value.mean().round() + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in VGGT(tiniest_config).state_dict().items()
    }


@pytest.fixture
def net(tmp_path: Path, tiniest_config: VGGTConfig) -> Path:
    """A folder with its config and no weights yet."""
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text(tiniest_config.to_json())
    return folder


@pytest.fixture
def plain(net: Path, tiniest_state: dict[str, Tensor]) -> Path:
    """The folder with its weights."""
    save_file(tiniest_state, net / "model.safetensors")
    return net


@pytest.fixture
def refused() -> Callable[[str | Path], str]:
    """The one line that both reading the weights and planning without them refuse a source with."""

    def message(source: str | Path) -> str:
        texts = set()
        for read in (load_vggt, architecture):
            with pytest.raises(InputError) as caught:
                read(source)
            texts.add(str(caught.value))
        (text,) = texts
        assert text.isprintable(), "one line, no control characters"
        return text

    return message


@pytest.fixture(autouse=True)
def _messages_name_options(spoken_in_options: None) -> None:
    """As the command line names them; how Python callers see them is tested with `setting`."""
