"""Whoever looks at outputs while an evaluation runs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vggtkit.core.arrays import Arrays


class Watch:
    """Is shown the outputs of FP32 and of every scheme on every scene; this one keeps nothing."""

    def __call__(self, key: str, scene: int, outputs: Mapping[str, Tensor]) -> None:
        """Look at what a result saw of a scene, by the scene's number."""

    def kept(self, key: str) -> Arrays:  # noqa: ARG002
        """What it keeps of a result."""
        return {}

    def restore(self, key: str, arrays: Arrays) -> None:
        """What it kept of a result before."""
