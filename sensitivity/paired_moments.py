"""What layers are given when layers before them are quantised, beside what FP32 gives them in the same places.

With x the row of inputs in FP32 and y the one that the quantised layers before leave in its place, a layer that is to
put out what it does in FP32 has to be chosen by ``H = sum y y^T`` and ``C = sum x y^T``
(`vggtkit.quant.rounding.gptq.aimed_at_exact_outputs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity.layer_rows import has_rows, input_rows
from sensitivity.moments import MOMENT_ROWS
from vggtkit.quant import Layer, replaced_weights
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

Arguments = tuple[Any, ...]


class _EnoughError(BaseException):
    """The last layer of interest has been called for the last time; no error to a model's own code."""


class Calls:
    """How often the layers whose rows are known are called in a pass, in the order of their first calls.

    Args:
        subject: not packed.
        layers: of it.
        scene: to run it on.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer], scene: Scene) -> None:
        self.subject = subject
        self.modules = {
            layer.name: module for layer in layers if has_rows(layer, module := subject.model.get_submodule(layer.name))
        }
        self.counts: dict[str, int] = {}
        self._run(scene, list(self.modules), self._count)

    def _count(self, name: str, _arguments: Arguments) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def moments(
        self, names: Sequence[str], scenes: Sequence[Scene], quantized: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """``H`` and ``C`` of some layers, FP32 ``[parts, in, in]`` each; not finite where the calls differ.

        Args:
            names: of them.
            scenes: to calibrate with.
            quantized: weights of the layers before, by name, in their modules' own layout.
        """
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for scene in scenes:
            exact: dict[str, list[Arguments]] = {name: [] for name in names}
            self._run(scene, names, partial(_keep, exact))
            with replaced_weights(self.subject.model, quantized):
                self._run(scene, names, partial(self._pair, exact, sums))
        return sums

    def _pair(
        self, exact: Mapping[str, list[Arguments]], sums: dict[str, tuple[Tensor, Tensor]], name: str,
        arguments: Arguments,
    ) -> None:  # fmt: skip
        """One call in the quantised model, with the same one in FP32."""
        module, after = self.modules[name], input_rows(self.modules[name], arguments)
        if name not in sums:
            width = after[0].shape[1]
            both = after[0].new_zeros(2, len(after), width, width, dtype=torch.float32)
            sums[name] = both[0], both[1]
        own, cross = sums[name]
        before = input_rows(module, exact[name].pop(0)) if exact[name] else []
        if [rows.shape for rows in before] != [rows.shape for rows in after]:
            own.fill_(torch.nan)
            return
        for part, (x, y) in enumerate(zip(before, after, strict=True)):
            for start in range(0, len(y), MOMENT_ROWS):
                given = y[start : start + MOMENT_ROWS].float()
                own[part].addmm_(given.T, given)
                cross[part].addmm_(x[start : start + MOMENT_ROWS].float().T, given)

    @torch.no_grad()
    def _run(self, scene: Scene, names: Sequence[str], see: Callable[[str, Arguments], None]) -> None:
        """A pass that ends when the named layers have been called as often as they are."""
        left = sum(self.counts.get(name, 0) for name in names)

        def hook(name: str, _module: nn.Module, arguments: Arguments, _output: object) -> None:
            nonlocal left
            see(name, tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in arguments))
            left -= 1
            if left == 0:
                raise _EnoughError

        with ExitStack() as undo:
            for name in names:
                undo.callback(self.modules[name].register_forward_hook(partial(hook, name)).remove)
            try:
                self.subject.run(scene, check=False)
            except _EnoughError:
                return


def _keep(calls: Mapping[str, list[Arguments]], name: str, arguments: Arguments) -> None:
    calls[name].append(arguments)
