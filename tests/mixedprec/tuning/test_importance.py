"""What of a block's outputs reaches the model's: against the Jacobian, written out."""

import pytest
import torch
from torch import Tensor, nn

from mixedprec.tuning import importance as of_blocks
from mixedprec.tuning.importance import importance
from vggtkit.core.journal import Parts
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

TOKENS, CHANNELS = 3, 4


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Chain(nn.Module):
    """Two linear parts; of what they put out the first token counts ten times, in one output, and the last nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Part(), Part()])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = images[:, 0, :TOKENS, :CHANNELS]
        for part in self.parts:
            x = part(x)
        return {"first": 10 * x[:, 0], "second": x[:, 1] + x[:, 0]}


@pytest.fixture
def chain() -> tuple[Subject, Scene]:
    torch.manual_seed(0)
    return subject_of(Chain().eval()), Scene("s", torch.rand(1, 3, 4, 4), torch.zeros(1, 2))


def expected(subject: Subject, scene: Scene, weights: dict[str, float]) -> dict[str, Tensor]:
    """Column sums of the squared Jacobian of every output over its norm, averaged over channels."""
    first, last = (part.fc.weight.detach() for part in subject.model.parts)
    given = scene.images[0, 0, :TOKENS, :CHANNELS]
    result = {}
    for name, after, y in (
        ("parts.0", last, given @ first.T),
        ("parts.1", torch.eye(CHANNELS), given @ first.T @ last.T),
    ):
        total = torch.zeros(TOKENS, CHANNELS)
        for output, function in (
            ("first", lambda x, a=after: 10 * x[0] @ a.T),
            ("second", lambda x, a=after: (x[1] + x[0]) @ a.T),
        ):
            jacobian = torch.autograd.functional.jacobian(function, y)
            total += weights[output] * jacobian.square().sum(0) / function(y).square().sum()
        result[name] = total.mean(-1)
    return result


@pytest.mark.parametrize("weights", [{"first": 0.5, "second": 0.5}, {"first": 0.25, "second": 0.75}])
def test_it_is_the_squared_jacobian(
    chain: tuple[Subject, Scene], weights: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, scene = chain
    monkeypatch.setattr(of_blocks, "PROBES", 400)
    (found,) = importance(subject, [scene], weights=weights)
    for name, values in expected(subject, scene, weights).items():
        ours = found[name][0].flatten()
        torch.testing.assert_close(ours[:2], values[:2], rtol=0.15, atol=0)
        assert float(ours[2]) == pytest.approx(of_blocks.FLOOR * float(ours.mean()), rel=0.01)


def test_it_is_kept_and_taken_up(chain: tuple[Subject, Scene], tmp_path: object) -> None:
    subject, scene = chain
    path = tmp_path / "m"  # type: ignore[operator]
    first = importance(subject, [scene], parts=Parts(path, {}))
    parts = Parts(path, {})
    assert parts.done() == ["importance 0"]
    subject.run = None  # type: ignore[method-assign, assignment]
    again = importance(subject, [scene], parts=parts)
    torch.testing.assert_close(dict(again[0]), dict(first[0]), rtol=0, atol=0)
