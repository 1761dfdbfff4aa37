"""Steps on disk: what is taken up is what was written, for the same purpose, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from vggtkit.core import journal
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import versions

PURPOSE = {"seed": 0, "scenes": ["a"]}
ARRAYS = {"sums": np.arange(60.0).reshape(3, 20), "names": np.array(["x", "y"]), "one": np.float32(0.5)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    parts = Parts(tmp_path / "profile.h5", PURPOSE)
    parts.save("0-fp32", ARRAYS)
    parts.save("0-damage", {"depth": np.ones((2, 3), dtype=np.float32)})
    return tmp_path / "profile.h5"


def test_steps_survive_their_files(path: Path) -> None:
    parts = Parts(path, PURPOSE)
    assert (parts.done(), parts.damaged, parts.replaced) == (["0-damage", "0-fp32"], {}, False)
    loaded = parts.load("0-fp32")
    assert loaded.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], values)


@pytest.mark.parametrize("seed", range(40))
def test_a_step_with_one_flipped_byte_is_measured_again_or_reads_the_same(path: Path, seed: int) -> None:
    """Some bytes of an archive are read by nobody; what is read must be what was written."""
    step = path.with_name("profile.h5.parts") / "0-fp32.npz"
    content = bytearray(step.read_bytes())
    content[int(np.random.default_rng(seed).integers(len(content)))] ^= 0xFF
    step.write_bytes(content)
    parts = Parts(path, PURPOSE)
    if "0-fp32" in parts.done():
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(parts.load("0-fp32")[name], values)
    else:
        assert (list(parts.damaged), step.exists()) == (["0-fp32"], False)
    assert "0-damage" in parts.done()


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_step_that_is_cut_is_measured_again(path: Path, kept: float) -> None:
    step = path.with_name("profile.h5.parts") / "0-damage.npz"
    whole = step.read_bytes()
    step.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    assert Parts(path, PURPOSE).done() == ["0-fp32"]


def test_a_step_of_another_purpose_or_name_is_not_taken_up(path: Path, tmp_path: Path) -> None:
    """As when two profiles wrote into one folder, or a file was copied."""
    other = Parts(tmp_path / "other" / "profile.h5", PURPOSE | {"seed": 1})
    other.save("0-fp32", ARRAYS)
    folder = path.with_name("profile.h5.parts")
    (other.folder / "0-fp32.npz").replace(folder / "0-fp32.npz")
    (folder / "1-damage.npz").write_bytes((folder / "0-damage.npz").read_bytes())
    parts = Parts(path, PURPOSE)
    assert (parts.done(), list(parts.damaged)) == (["0-damage"], ["0-fp32", "1-damage"])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}"])
def test_another_or_a_damaged_purpose_starts_anew(path: Path, content: bytes) -> None:
    (path.with_name("profile.h5.parts") / "purpose.json").write_bytes(content)
    parts = Parts(path, PURPOSE)
    assert (parts.done(), parts.replaced) == ([], True)


@pytest.mark.parametrize("which", ["tool_version", "torch", "numpy"])
def test_steps_of_other_versions_are_not_taken_up(path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """They may round otherwise, and nothing else of the purpose says so."""
    monkeypatch.setattr(journal, "versions", lambda: versions() | {which: "0.1"})
    assert Parts(path, PURPOSE).done() == []
