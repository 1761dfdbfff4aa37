"""How much of what a block puts out reaches the model's outputs, token by token.

The damage of an error e of a block's output is, to first order, ``|J e|^2`` with J the Jacobian of the outputs, each
over its norm. For random v, the squares of ``J^T v`` are on average the diagonal of ``J^T J``: what each number counts
if errors are not correlated. Averaged over the channels of a token (for maps, of a pixel), it says how much more than a
patch a camera token counts, and that of a head's steps only the last one is seen.

Sources: Li et al., "BRECQ", ICLR 2021 (the diagonal of the Fisher information in the place of the Hessian); Hutchinson,
1989 (random vectors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mixedprec.evidence import shares_of
from sensitivity.differentiable import without_gradients
from sensitivity.going_back import differentiated, norm_of
from sensitivity.route import Route
from sensitivity.segments import Consume, Tape
from vggtkit.core.arrays import Arrays
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

PROBES = 2
"""Random combinations of the outputs, for each scene; the mean over channels does the rest."""
FLOOR = 1e-3
"""Of the mean: what a token counts at least, as squares of few random numbers may be near 0 by chance."""

Importance = Mapping[str, Sequence[Tensor]]
"""By segment: what the rows of each of its outputs count, broadcast over channels."""


def importance(
    subject: Subject,
    scenes: Sequence[Scene],
    *,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    parts: Parts | None = None,
    progress: Progress = silent,
) -> list[Importance]:
    """What counts of every segment's outputs, for each scene.

    Args:
        subject: with its original weights.
        scenes: any.
        weights: what each output of the model counts for; 1 for those not named.
        seed: of the random combinations.
        parts: where every scene is kept that is done, and taken from.
        progress: told about every scene.

    Returns:
        One entry a scene. What no output sees counts 0; a segment that none sees is absent.
    """
    rows: list[Importance] = []
    for number, scene in enumerate(scenes):
        progress("what reaches the outputs", number, len(scenes))
        step = f"importance {number}"
        if parts is not None and step in parts.done():
            rows.append(_from_arrays(parts.load(step)))
            continue
        generator = torch.Generator().manual_seed(seed * len(scenes) + number)

        def passes(route: Route, scene: Scene = scene, generator: torch.Generator = generator) -> Importance:
            tape = _WatchedTape(route.segments, (), reused=route.reused, running=route.running)
            with tape.recording(), route.running():
                outputs = subject.run(scene)
                probes = [_combined(outputs, weights or {}, generator) for _ in range(PROBES)]
            tape.back(probes, [torch.ones_like(probe) for probe in probes], lambda _rows, _gradients: None)
            return tape.squares

        rows.append(differentiated(subject, (), scene, passes))
        if parts is not None:
            own = rows[-1].items()
            parts.save(step, {f"{name}/{i}": t.numpy(force=True) for name, ts in own for i, t in enumerate(ts)})
    return rows


def _from_arrays(arrays: Arrays) -> Importance:
    """Of a step of the journal."""
    importance: dict[str, dict[int, Tensor]] = {}
    for key, values in arrays.items():
        name, _, number = key.rpartition("/")
        importance.setdefault(name, {})[int(number)] = torch.from_numpy(values)
    return {name: [own[number] for number in sorted(own)] for name, own in importance.items()}


class _WatchedTape(Tape):
    """One that keeps the squares of the gradients at what segments put out."""

    def __init__(self, *given: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*given, **options)
        self.squares: dict[str, list[Tensor]] = {}

    def _through(self, call: Any, count: int, consume: Consume) -> None:  # noqa: ANN401
        with without_gradients():
            own = [_of_rows(leaf, row) for leaf, row in zip(call.leaves, call.pending, strict=True)]
        self.squares[call.name] = own
        super()._through(call, count, consume)


def _of_rows(output: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
    """The mean square over the channels of every row, and over the probes; not below `FLOOR` of the mean."""
    channels = -3 if output.ndim > 3 else -1  # maps, or tokens
    there = [gradient.float().square().mean(channels, keepdim=True) for gradient in gradients if gradient is not None]
    if not there:
        return output.new_zeros(())
    mean = torch.stack(there).mean(0)
    return mean.clamp_min(FLOOR * float(mean.mean()))


def _combined(outputs: Mapping[str, Tensor], weights: Mapping[str, float], generator: torch.Generator) -> Tensor:
    """A random combination of all outputs, each over its norm."""
    shares = shares_of(outputs, weights)
    parts = []
    for name, value in outputs.items():
        drawn = torch.randn(value.shape, generator=generator).to(value.device)
        if value.requires_grad:
            parts.append(shares[name] ** 0.5 * (value.float() * (drawn / norm_of(value))).sum())
    return torch.stack(parts).sum()
