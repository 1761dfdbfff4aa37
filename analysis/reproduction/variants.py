"""What is measured: the baseline, uniform schemes, plans with calibrated rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mixedprec import quantized_weights
from mixedprec.apply import packed_with
from mixedprec.checkpoint import read_weights
from vggtkit.core.seal import digest_of
from vggtkit.subject import Subject

BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """A model.

    Attributes:
        name: in files.
        title: for people.
        size_bytes: of its file; of the baseline, of 16 bits.
        formats: by layer; none for the baseline.
        checkpoint: where its weights are, if they were rounded with calibration.
        digest: of what decides its weights beside formats.
    """

    name: str
    title: str
    size_bytes: int
    formats: dict[str, str] = field(default_factory=dict)
    checkpoint: Path | None = None
    digest: str = ""

    @property
    def key(self) -> str:
        """Its name, and a digest of what decides its numbers."""
        return f"{self.name}-{digest_of([self.formats, self.digest])[:8]}"

    @contextmanager
    def running(self, whole: Subject, subject: Subject) -> Iterator[Subject]:
        """A subject with some heads under this variant; ``whole`` is the model that the variant was made for."""
        if not self.formats:
            yield subject
            return
        own = {layer.name for layer in subject.layers}
        weights = (
            quantized_weights(subject, {name: key for name, key in self.formats.items() if name in own})
            if self.checkpoint is None
            else {name: q for name, q in read_weights(self.checkpoint, whole).items() if name in own}
        )
        with packed_with(subject, weights):
            yield subject
