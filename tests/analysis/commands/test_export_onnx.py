"""``export --format onnx``."""

from pathlib import Path

import onnx
import pytest

from tests.analysis.commands.running import assert_refused, cli, the_json


def test_the_plan_becomes_a_file_that_is_compared_with_torch(run: Path) -> None:
    assert cli("plan", "--run", run, "--heads", "camera", "--budget", "60%").code == 0
    found = the_json(cli("export", "--run", run, "--format", "onnx", "--views", 2, "--json"))
    path = run / "model-plan.onnx"
    onnx.checker.check_model(path)
    assert (found["path"], found["size_bytes"]) == (str(path), path.stat().st_size)
    assert (found["views"], found["height"], found["width"]) == (2, 32, 32)
    assert found["nmse"].keys() == {"pose_enc"}
    assert found["nmse"]["pose_enc"] < 1e-2
    assert not list(run.glob("tmp*"))


@pytest.mark.parametrize(
    ("style", "overflows", "said"),
    [
        ("dynamic", False, "on x86 without VNNI"),
        ("dynamic", True, "weights are unsigned"),
        ("qdq", False, "without VNNI sums of OpenVINO overflow"),
    ],
)
def test_which_processors_a_file_is_for_is_said(
    run: Path, style: str, overflows: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggtkit.runtime.onnx.styles.may_overflow", lambda: overflows)
    monkeypatch.setattr("analysis.steps.onnx_export.check_operators", lambda _weights: {})  # signed ones may fail it
    found = cli("export", "--run", run, "--format", "onnx", "--scheme", "int8_per_channel_sym", "--onnx", style)
    assert found.code == 0, found
    assert said in " ".join(found.out.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "gguf"), "use safetensors or onnx"),
        (("--format", "onnx", "--onnx", "fast"), "ONNX style 'fast'"),
        (("--format", "onnx", "--scheme", "int4_asym_64", "--onnx", "qdq"), "--convert"),
    ],
)
def test_what_cannot_be_is_refused(run: Path, options: tuple[str, ...], said: str) -> None:
    assert_refused(cli("export", "--run", run, *options), said)
    assert not (run / "model-plan.onnx").exists()
