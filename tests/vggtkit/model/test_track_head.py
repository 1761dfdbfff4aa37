"""The track head against the published one, in float64.

In float32 this cannot be compared from one processor to the next: the tracker takes sines of up to 1000 times a
displacement, so with random weights a last bit grows a thousandfold in every iteration.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vggtkit.model.loading import load_vggt

SIZE, FRAMES, TOKENS, CHANNELS = (84, 112), 3, 5 + 6 * 8, 128
PUBLISHED = Path(__file__).parent / "published_tracks.json"


@pytest.fixture(scope="module")
def tracked(shared_dir: Path) -> dict[str, Tensor]:
    """Tracks of all iterations, visibility and confidence by our code, from tokens that any machine makes alike."""
    head = load_vggt(shared_dir / "fixtures/vggt_small").track_head.double()
    i = torch.arange(FRAMES * TOKENS * CHANNELS, dtype=torch.float64).reshape(1, FRAMES, TOKENS, CHANNELS)
    tokens = {depth: ((depth + 1) * i + i.square() % 97).sin() for depth in range(4)}
    with np.load(shared_dir / "fixtures/vggt_small/reference.npz") as arrays:
        points = torch.from_numpy(arrays["query_points"]).double()
    with torch.no_grad():
        tracks, visible, confident = head(tokens, SIZE, points)
    return {"track": torch.cat(tracks), "vis": visible, "conf": confident}


@pytest.mark.parametrize("name", ["track", "vis", "conf"])
def test_published_tracks_are_reproduced(name: str, tracked: dict[str, Tensor]) -> None:
    published = torch.tensor(json.loads(PUBLISHED.read_text())[name], dtype=torch.float64).view_as(tracked[name])
    torch.testing.assert_close(tracked[name], published, rtol=0, atol=1e-7 * published.abs().max().item())
