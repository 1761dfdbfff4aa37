"""The benchmark at full size, on a network that takes seconds, so that it cannot rot."""

from pathlib import Path

import pytest

from benchmarks.full_size import full_size


@pytest.mark.slow
def test_runs_and_reports_everything(tmp_path: Path, tiniest_config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("vggtkit.model.config", fromlist=["PRESETS"]).PRESETS, "tiniest", tiniest_config)
    found = full_size("tiniest", None, None, tmp_path)
    assert found["weights"] == "random"
    assert found["layers"] > 50
    stages = found["stages_in_forwards"]
    assert set(stages) == {
        "counting layers and memory",
        "FP32 and isolated errors",
        "seven schemes, accumulated errors",
        "damage at the outputs, layer by layer",
        "writing scores",
    }
    assert sum(stages.values()) == pytest.approx(found["profile_in_forwards"])
    assert found["profile_bytes"] == (tmp_path / "profile.h5").stat().st_size
    assert 0.75 < found["expected_over_measured"] < 1.34
    assert found["quantised_weights_per_second"] > 0
