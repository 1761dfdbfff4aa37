"""Networks whose forwards, or parts of these, are called in other ways: threads, hooks, other weights, late layers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trust.foreign.base import REFUSED, WIDTH, Net, Part, model


class InThread(Part):
    """The branch is computed by another thread, in which gradients are not switched off."""

    def forward(self, x: Tensor) -> Tensor:
        """As a block."""
        with ThreadPoolExecutor(1) as pool:
            return x + pool.submit(self.branch, x).result()


@model
def thread_inside() -> nn.Module:
    """Blocks in threads of their own."""
    return Net(InThread)


class Switches(Part):
    """Gradients are switched on inside, whatever the caller wants."""

    def forward(self, x: Tensor) -> Tensor:
        """As a block."""
        with torch.enable_grad():
            return x + self.branch(x)


@model
def gradients_switched_on() -> nn.Module:
    """``enable_grad`` inside."""
    return Net(Switches)


@model
def hook_replaces_output() -> nn.Module:
    """Forward hooks of a layer and of a block change what these give."""
    net = Net()
    net.stem.register_forward_hook(lambda _module, _arguments, output: 2 * output + 1)
    net.blocks[1].register_forward_hook(lambda _module, _arguments, output: 0.5 * output)
    return net


@model
def hook_replaces_input() -> nn.Module:
    """A hook changes what a layer is called with."""
    net = Net()
    net.head.register_forward_pre_hook(lambda _module, arguments: (3 * arguments[0],))
    return net


class Gained(Net):
    """The forward is a ``functools.partial`` that an instance holds."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = partial(self._run, gain=2.0)  # type: ignore[method-assign]

    def _run(self, x: Tensor, gain: float) -> Any:  # noqa: ANN401
        return gain * super().forward(x)


@model
def forward_is_partial() -> nn.Module:
    """As diffusers and adapters patch models."""
    return Gained()


@model
def compiled_blocks() -> nn.Module:
    """Blocks are wrapped by ``torch.compile``."""
    net = Net()
    net.blocks = nn.ModuleList(torch.compile(block, backend="eager") for block in net.blocks)  # type: ignore[misc]
    return net


class CallsTwice(Net):
    """One layer is called twice with other inputs, of another length the second time."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """As a network."""
        stem = self.stem(x)
        return super().forward(x) + self.head(F.gelu(self.stem(0.3 * x[:, :4]))).sum(1, keepdim=True) + stem.mean()


@model
def called_twice() -> nn.Module:
    """A layer on two inputs."""
    return CallsTwice()


class Functional(nn.Module):
    """The network is called with other tensors in the place of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """As a meta-learner does."""
        weights = {name: 1.0 * parameter for name, parameter in self.net.named_parameters()}
        return torch.func.functional_call(self.net, weights, (x,))


@model
def functional_call() -> nn.Module:
    """``torch.func.functional_call`` inside."""
    return Functional()


REFUSED["functional_call"] = "layer net.*: it is run with another weight than its own"


class Late(Net):
    """The last layer is made in the first call."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """As a network."""
        if not hasattr(self, "late"):
            self.late = nn.Linear(6, WIDTH)
        return self.late(super().forward(x))


@model
def layer_made_in_forward() -> nn.Module:
    """A layer that is not there before the first call."""
    return Late()


REFUSED["layer_made_in_forward"] = "a pass makes the parameter late.weight"


class Forces(Net):
    """What is returned is a gradient: forces are that of an energy."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """As networks of molecules."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = super().forward(x).square().sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]


@model
def gradient_inside() -> nn.Module:
    """``autograd.grad`` inside."""
    return Forces()


REFUSED["gradient_inside"] = "it takes gradients itself"
