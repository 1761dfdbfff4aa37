"""Gradients are switched off, or are not those of the forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.trust.foreign.base import REFUSED, WIDTH, Net, model


class NoGrad(Net):
    """Made for inference."""

    forward = torch.no_grad()(Net.forward)


class Inference(Net):
    """Made for inference alone."""

    forward = torch.inference_mode()(Net.forward)


@model
def under_no_grad() -> nn.Module:
    """All of it under no_grad."""
    return NoGrad()


@model
def under_inference_mode() -> nn.Module:
    """All of it under inference_mode."""
    return Inference()


class FrozenBackbone(Net):
    """Blocks run without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        with torch.no_grad():
            for block in self.blocks[:2]:
                x = block(x)
        return self.head(self.blocks[2](x))


@model
def frozen_backbone() -> nn.Module:
    """A part under no_grad."""
    return FrozenBackbone()


class Detached(Net):
    """Cuts what its blocks give."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x).detach()
        return self.head(x)


@model
def detached() -> nn.Module:
    """Everything before the head is detached."""
    return Detached()


class ByData(Net):
    """Cuts with ``data``."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x).data
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@model
def stem_read_by_data() -> nn.Module:
    """The stem's output is read past autograd."""
    return ByData()


class Choosing(Net):
    """Goes on with the number of the largest channel."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.head(F.one_hot(self.stem(x).argmax(-1), WIDTH).to(x.dtype))


@model
def whole_numbers_inside() -> nn.Module:
    """What the stem does goes on as whole numbers."""
    return Choosing(count=0)


REFUSED["whole_numbers_inside"] = "layer stem: .*no gradient"


class ByItem(Net):
    """Scales by a number that it reads out."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.head(x) * float(self.stem(x).square().mean())


@model
def number_read_out() -> nn.Module:
    """What the stem does goes on as a number of Python."""
    return ByItem(count=0)


REFUSED["number_read_out"] = "layer stem: .*no gradient"


class ByNumPy(Net):
    """Goes through an array of NumPy in front of its head."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.head(torch.from_numpy(self.stem(x).detach().numpy().copy()))


@model
def through_numpy() -> nn.Module:
    """What is not detached cannot even become an array."""
    return ByNumPy(count=0)


REFUSED["through_numpy"] = "layer stem: .*no gradient"


@model
def frozen_parameters() -> nn.Module:
    """No parameter requires gradients."""
    return Net().requires_grad_(False)


class Checkpointed(Net):
    """Recomputes its blocks in training."""

    reentrant = True

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


class CheckpointedAnew(Checkpointed):
    """The same with torch's newer way."""

    reentrant = False


@model
def checkpoint_reentrant() -> nn.Module:
    """Checkpointed as it was."""
    return Checkpointed()


@model
def checkpoint_anew() -> nn.Module:
    """Checkpointed as it is."""
    return CheckpointedAnew()


class SwitchesOff(Net):
    """Switches gradients off by hand, and forgets to switch them on."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        torch.set_grad_enabled(False)
        return super().forward(x)


@model
def switched_off() -> nn.Module:
    """Under set_grad_enabled."""
    return SwitchesOff()


class Iterates(Net):
    """Refines its result, one step's gradient cut from the next's, as published heads do."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        y = torch.zeros_like(x)
        for _ in range(4):
            y = y.detach()
            for block in self.blocks:
                y = block(y + 0.3 * x)
        return self.head(y)


@model
def iterations_detached() -> nn.Module:
    """Iterations are detached from each other."""
    return Iterates()


class StraightThrough(Net):
    """Rounds, with the derivative of not rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        y = self.stem(x)
        rounded = y + ((32 * y).round() / 32 - y).detach()
        for block in self.blocks:
            rounded = block(rounded)
        return self.head(rounded)


@model
def straight_through() -> nn.Module:
    """A straight-through estimator."""
    return StraightThrough()


class Scaled(torch.autograd.Function):
    """What it is given; the gradient a tenth of it, as adversarial and two-speed training have it."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:  # noqa: ANN401, D102
        return x.view_as(x)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, D102
        return 0.1 * gradient


class Clipped(Scaled):
    """What it is given; of the gradient only what is small, as recurrent networks for matching have it."""

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, D102
        return torch.where(gradient.abs() < 0.01, gradient, 0)


class Squared(torch.autograd.Function):
    """A function with the derivative that it has."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:  # noqa: ANN401, D102
        context.save_for_backward(x)
        return x + 0.1 * x.square()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, D102
        return gradient * (1 + 0.2 * context.saved_tensors[0])


class AfterStem(Net):
    """Does something to what its stem gives."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """The stem and the rest."""
        x = self.function(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def _hooked(x: Tensor) -> Tensor:
    if x.requires_grad:
        x.register_hook(lambda gradient: 0.1 * gradient)
    return x


@model
def gradient_scaled() -> nn.Module:
    """A function whose derivative is a tenth."""
    return AfterStem(Scaled.apply)


@model
def gradient_clipped() -> nn.Module:
    """A function that lets no large gradient pass."""
    return AfterStem(Clipped.apply)


@model
def gradient_hooked() -> nn.Module:
    """A hook that scales a gradient."""
    return AfterStem(_hooked)


@model
def derivative_brought() -> nn.Module:
    """A function of its own, with its derivative."""
    return AfterStem(Squared.apply)


REFUSED |= dict.fromkeys(("gradient_scaled", "gradient_clipped", "gradient_hooked"), "derivatives of its own")


class AsksForGradients(Net):
    """Is another function where gradients are taken."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """Shorter without them."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if torch.is_grad_enabled() else x + 0.2 * block.branch(x)
        return self.head(x)


@model
def other_with_gradients() -> nn.Module:
    """What is given hangs on ``is_grad_enabled``."""
    return AsksForGradients()


REFUSED["other_with_gradients"] = "something else where gradients are taken"
