"""What the commands say of models that cannot be profiled as they are, and of estimates that do not hold."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sensitivity import open_profile
from tests.analysis.commands.running import Ran, assert_refused, cli, the_json

HERE = "tests.analysis.commands.test_trust"
WIDTH = 64


def tokens():
    generator = torch.Generator().manual_seed(3)
    while True:
        yield torch.randn(2, 6, WIDTH, generator=generator)


def tokens_with_nothing():
    while True:
        yield torch.zeros(2, 6, WIDTH)


def wrong_size():
    while True:
        yield torch.randn(2, 6, WIDTH + 1)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last, self.spare = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor):
        return self.last(torch.relu(self.first(x)))


class Weakened(torch.autograd.Function):
    """Says a thousandth of its derivative."""

    @staticmethod
    def forward(_ctx, x: Tensor):
        return x.clone()

    @staticmethod
    def backward(_ctx, gradient: Tensor):
        return 1e-3 * gradient


class Sighted(Mlp):
    """Gradients see a thousandth of it."""

    def forward(self, x: Tensor):
        y = Weakened.apply(super().forward(x))
        return {"a/b": y, "ids": y.argmax(-1)}


class Dead(Mlp):
    def forward(self, x: Tensor):
        return {"mask": 0 * super().forward(x), "bias": self.last.bias + torch.relu(self.first(x) - 1e3).sum()}


class Noisy(Mlp):
    def forward(self, x: Tensor):
        return super().forward(x + 0.1 * torch.rand_like(x))


class Quiet(Mlp):
    """Noise that is too small to refuse and too large to leave unsaid."""

    def forward(self, x: Tensor):
        return super().forward(x + 1e-4 * torch.randn_like(x))


class Hides(Mlp):
    def forward(self, x: Tensor):
        return self.last(torch.relu(self.first(x)).round().long().float())


def mlp():
    return Mlp()


def sighted():
    return Sighted()


def dead():
    return Dead()


def noisy():
    return Noisy()


def quiet():
    return Quiet()


def hides():
    return Hides()


def profile(name: str, run: Path, *options: object, inputs: str = "tokens") -> Ran:
    asked = ("--model", f"{HERE}:{name}", "--inputs", f"{HERE}:{inputs}", "--num-scenes", 2, "--run", run)
    return cli("profile", *asked, "--probes", 16, *options)


@pytest.mark.parametrize(
    ("name", "inputs", "fragments"),
    [
        ("noisy", "tokens", ("two FP32 passes", "dropout that forgets eval")),
        ("hides", "tokens", ("layer first", "no gradient reaches it", "no_grad, inference_mode, detach")),
        ("mlp", "wrong_size", ("fails on its input", "test_trust.py", "in forward")),
    ],
)
def test_refused_with_a_reason(tmp_path: Path, name: str, inputs: str, fragments: tuple[str, ...]) -> None:
    assert_refused(profile(name, tmp_path, inputs=inputs), *fragments)
    assert not (tmp_path / "profile.h5").exists()


def test_layers_that_no_scene_reaches_keep_four_bits_and_are_told(tmp_path: Path) -> None:
    ran = profile("mlp", tmp_path)
    assert ran.code == 0, ran.err
    assert "Not reached by these scenes (1 layer): spare" in " ".join(ran.out.split())
    assert "parameters lie in no layer that can be quantised: first.bias" in " ".join(ran.out.split())
    assert "nan" not in ran.out
    for formats in ("auto", "all"):
        planned = cli("plan", "--budget", "40%", "--run", tmp_path, "--formats", formats)
        assert planned.code == 0, planned.err
        assert "Not reached by the calibration scenes: spare; 4 bits there are a precaution" in " ".join(
            planned.out.split()
        )
        plan = json.loads((tmp_path / "plan.json").read_text())
        assert plan["formats"]["spare"].startswith("int4")
        assert plan["provenance"]["unreached"] == ["spare"]
    pinned = cli("plan", "--budget", "40%", "--run", tmp_path, "--pin", "spare=int8_per_channel_sym")
    assert pinned.code == 0, pinned.err
    assert json.loads((tmp_path / "plan.json").read_text())["formats"]["spare"] == "int8_per_channel_sym"


def test_a_derivative_that_is_none_is_refused_by_the_layer_behind_it(tmp_path: Path) -> None:
    assert_refused(profile("sighted", tmp_path), "layer first", "derivatives of its own (Weakened)")


def test_an_estimate_that_does_not_hold_is_told_and_nothing_is_called_optimal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where single layers have not shown it before."""
    monkeypatch.setattr("sensitivity.profiler.check_derivatives", lambda *_: None)
    ran = profile("sighted", tmp_path)
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "OFF 1e-06" in said
    assert "THE ESTIMATE DOES NOT HOLD for 1 of 1 outputs, most for a/b" in said
    assert "Left out of what the model returns: ids (int64 tensor)" in said
    assert open_profile(tmp_path).damage.keys() == {"a/b"}
    for policy in ("optimal", "joint", "sensitive"):
        planned = cli("plan", "--budget", "40%", "--run", tmp_path, "--policy", policy)
        assert planned.code == 0, planned.err
        assert "THE ESTIMATE DOES NOT HOLD" in planned.out
        assert "Proven" not in planned.out
        provenance = json.loads((tmp_path / "plan.json").read_text())["provenance"]
        assert provenance["estimate_holds"] is False
        assert provenance["estimate_check"]["a/b"] < 1e-4


def test_an_estimate_that_holds_is_not_called_off(tmp_path: Path) -> None:
    found = the_json(profile("mlp", tmp_path, "--json"))
    assert found["estimate_check"]["output"]["holds"]
    assert 1 / 3 < found["estimate_check"]["output"]["ratio"] < 3
    assert found["repeatability"] == {"output": 0.0}
    planned = cli("plan", "--budget", "40%", "--run", tmp_path, "--policy", "optimal")
    assert "Proven optimal" in planned.out


def test_a_model_that_nothing_matters_to_is_told_and_planned(tmp_path: Path) -> None:
    ran = profile("dead", tmp_path)
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "THE OUTPUTS DO NOT DEPEND ON THE SCENE" in said
    assert "All zeros in FP32, so that no error can be told relative to it: mask" in said
    assert "nan" not in said
    for command in (("plan", "--budget", "60%"), ("evaluate", "--repeats", 0)):
        ran = cli(*command, "--run", tmp_path)
        assert ran.code == 0, ran.err
        assert " nan " not in ran.out
    assert_refused(cli("audit", "--run", tmp_path), "there is nothing to rank")


def test_noise_that_can_be_lived_with_is_told_everywhere(tmp_path: Path) -> None:
    for command in ((), ("plan", "--budget", "60%"), ("evaluate", "--repeats", 0)):
        ran = cli(*command, "--run", tmp_path) if command else profile("quiet", tmp_path)
        assert ran.code == 0, ran.err
        assert "NOT REPEATABLE" in ran.out
