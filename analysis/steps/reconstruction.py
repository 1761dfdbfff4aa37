"""A network and pictures -> depth maps, cameras and a cloud of points, in a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from analysis.reconstruction.colmap import listed_names
from analysis.reconstruction.differences import DIFFERENCE_FIGURES, NUMBERS, Differences, differences
from analysis.reconstruction.folder import (
    ARCHIVE,
    CLOUD,
    COLMAP,
    DEPTH,
    DIFFERENCES,
    INDEX,
    OVERVIEW,
    PREVIEWS,
    Reconstruction,
    WrittenFolder,
    reconstruction_of,
    write_reconstruction,
)
from analysis.reconstruction.joining import join
from analysis.reconstruction.needs import ReconstructionNeeds, needs_of
from analysis.reconstruction.pictures import Pictures, photographs, rendered, width_for
from analysis.reconstruction.views import Views, see
from analysis.report.document import Table
from analysis.steps.network import Network, NetworkChoice, full_network, open_network
from analysis.steps.run_folder import check_writable
from analysis.steps.view import View
from mixedprec import format_bytes
from vggtkit.core.atomic import check_replaceable
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.memory import peak_resident_bytes
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, Say, provenance, silent
from vggtkit.scenes import list_photos, synthetic_scenes
from vggtkit.subject import Subject

AGAINST = "fp32"
CONFIDENCE = 50.0
"""The percentile below which points are left out: of a network that knows nothing of sky, glass and edges of things,
half of all pixels are better not believed; VGGT's own demonstration begins with the same."""


@dataclass(frozen=True)
class PictureChoice:
    """Which pictures.

    Attributes:
        images: folder of photographs; None for a room that is rendered.
        max_images: at most so many, evenly spread; None for all.
        stride: every so many of them; None for every one.
        resolution: width that they are brought to; None for that which the network is made for.
    """

    images: str | None = None
    max_images: int | None = None
    stride: int | None = None
    resolution: int | None = None

    def check(self) -> None:
        """Refuse what is out of range, and a folder without pictures, before a network is loaded.

        Raises:
            InputError: with the way out.
        """
        for name, number in (("max_images", self.max_images), ("stride", self.stride), ("resolution", self.resolution)):
            if number is not None:
                check_number(name, number, 1, 2**15)
        if self.images is not None:
            list_photos(self.images)
        elif chosen := [name for name in ("max_images", "stride") if getattr(self, name) is not None]:
            raise InputError(f"{setting(chosen[0])} chooses among pictures, and a room is rendered; give --images DIR")

    def pictures(self, subject: Subject) -> Pictures:
        """The pictures, of the size that a network takes.

        Raises:
            InputError: as `photographs`.
        """
        sizes = width_for(self.resolution, subject.picture_sizes)
        if self.images is None:
            return rendered(synthetic_scenes(1, 4, (sizes[0], sizes[0]), split="evaluation")[0])
        return photographs(self.images, sizes, most=self.max_images, stride=self.stride or 1)


@dataclass(frozen=True)
class ReconstructionChoice:
    """What is to be reconstructed, and how.

    Attributes:
        pictures: of which place.
        network: that looks at them.
        confidence: percentile below which pixels become no points.
        against: ``"fp32"`` to add the differences from the network in FP32; None for none.
        chunk: pictures in a pass, at most; 0 for as many as fit into memory.
    """

    pictures: PictureChoice
    network: NetworkChoice
    confidence: float = CONFIDENCE
    against: str | None = None
    chunk: int = 0

    def check(self) -> None:
        """Refuse what cannot be, before a network is loaded.

        Raises:
            InputError: with the way out.
        """
        network, against = self.network, self.against
        network.check()
        if not 0 <= self.confidence < 100:
            raise InputError(f"{setting('confidence', self.confidence)}: a percentile is 0 or more and below 100")
        if self.chunk:
            check_number("chunk", self.chunk, 2, 10**4)
        if against is not None and against != AGAINST:
            raise InputError(f"{setting('against', against)}: not known; give {AGAINST}, or leave it out")
        if against is not None and not network.is_packed:
            raise InputError(
                f"{setting('against', against)}: the network runs in FP32 itself; name {setting('run')} or"
                f" {setting('checkpoint')}"
            )
        if against is None and network.checkpoint is not None and network.model is not None:
            raise InputError(
                f"{setting('model', network.model)}: a checkpoint needs none, but to be compared with it; add"
                f" {setting('against', AGAINST)}"
            )
        self.pictures.check()


class Seen(NamedTuple):
    """What a network saw.

    Attributes:
        views: of all pictures, in the frame of the first.
        scales: that chunks after the first were brought to.
        seconds: that the passes took.
    """

    views: Views
    scales: list[float]
    seconds: float


def make_reconstruction(
    out: Path, choice: ReconstructionChoice, *, progress: Progress = silent, say: Say = lambda _: None
) -> View:
    """Reconstruct a place from pictures, and write all of it to a folder.

    Args:
        out: the folder; new, empty, or of an earlier reconstruction, whose place is taken.
        choice: what, and how.
        progress: called as the work goes on.
        say: told what it will take, before it begins.

    Raises:
        InputError: what is asked for cannot be had; nothing is written then.
    """
    check_writable(out, "out")
    check_replaceable(out, INDEX)
    made = see_place(choice, progress=progress, say=say)
    progress("writing", 0, 1)
    written = write_reconstruction(made.own, out, made.facts, made.differences)
    return _view(made, written, out)


@dataclass(frozen=True)
class Made:
    """A reconstruction, and the one that it is compared with.

    Attributes:
        own: by the network that was asked for.
        reference: by the same in FP32; None where nobody asked.
        differences: of both.
        facts: for files.
    """

    own: Reconstruction
    reference: Reconstruction | None
    differences: Differences | None
    facts: dict[str, Any]


def see_place(choice: ReconstructionChoice, *, progress: Progress = silent, say: Say = lambda _: None) -> Made:
    """What `make_reconstruction` writes.

    Raises:
        InputError: what is asked for cannot be had.
    """
    choice.check()
    reference = None
    if choice.against is not None:
        full = full_network(choice.network, progress=progress, say=say)
        shown = choice.pictures.pictures(full.subject)
        reference, _ = _seen(full, shown, choice.chunk, progress, say)
        del full
    with open_network(choice.network, progress=progress, say=say) as opened:
        shown = choice.pictures.pictures(opened.subject)
        for note in shown.notes:
            say(note)
        seen, needs = _seen(opened, shown, choice.chunk, progress, say)
        facts = _facts(opened, shown, seen, needs, choice.confidence)
    own = reconstruction_of(shown, seen.views, choice.confidence)
    if reference is None:
        return Made(own, None, None, facts)
    compared = reconstruction_of(shown, reference.views, choice.confidence)
    apart = differences(own.views, compared.views, shown.shown())
    facts["fp32_seconds"] = reference.seconds
    return Made(own, compared, apart, facts)


def _seen(
    network: Network, pictures: Pictures, chunk: int, progress: Progress, say: Say
) -> tuple[Seen, ReconstructionNeeds]:
    """Say what it takes, and run all passes."""
    progress("forecasting", 0, 1)
    needs = needs_of(
        network.subject, network.bare, pictures, weights=(network.weight_bytes, network.largest_bytes),
        at_once=chunk or None, timed=not network.writes_files,
    )  # fmt: skip
    for sentence in needs.sentences():
        say(f"{network.title}: {sentence}" if sentence == needs.sentences()[0] else sentence)
    if network.writes_files:
        said = f"{setting('execute', network.facts['execute'])} first writes a file for every number of pictures"
        say(f"{said}, which takes longer than passes do: the time is not forecast, and that of the passes counts it")
    begun, parts = time.perf_counter(), []
    for number, numbers in enumerate(needs.chunks):
        progress(f"reconstructing, {network.title}", number, len(needs.chunks))
        parts.append(see(network.subject, pictures, list(numbers)))
    seconds = time.perf_counter() - begun
    views, scales = join(parts)
    return Seen(views, scales, seconds), needs


def _facts(
    network: Network, pictures: Pictures, seen: Seen, needs: ReconstructionNeeds, confidence: float
) -> dict[str, Any]:
    forecast = needs.forecast
    return provenance(
        schema_version=1,
        network=network.title,
        **network.facts,
        canvas=list(pictures.canvas),
        chunks=[[numbers.start, numbers.stop] for numbers in needs.chunks],
        chunk_scales=seen.scales,
        confidence_percentile=confidence,
        forecast={
            "weight_bytes": forecast.weight_bytes, "activation_bytes": forecast.activation_bytes,
            "kept_bytes": needs.kept_bytes, "seconds": forecast.seconds,
        },
        seconds=seen.seconds,
        process_peak_bytes=peak_resident_bytes(),
    )  # fmt: skip


def differences_table(apart: Differences) -> Table:
    """How far a reconstruction is from that in FP32."""
    rows = [(DIFFERENCE_FIGURES[name], f"{value:.4g}") for name, value in apart.numbers.items()]
    return Table("Differences from FP32", ("difference", "value"), rows)


def _view(made: Made, written: WrittenFolder, out: Path) -> View:
    views, facts = made.own.views, made.facts
    table = Table(
        f"Reconstruction of {len(views)} pictures, {facts['network']}",
        ("file", "holds"),
        [
            (f"{DEPTH}/", f"depth, 16-bit PNG, a step is {written.depth_per_step:.3g} (scale.json)"),
            (ARCHIVE, "depth, confidence and cameras, for numpy"),
            (f"{COLMAP}/", f"cameras and {written.colmap_points:,} points as COLMAP text"),
            (CLOUD, f"{written.points:,} coloured points, confidence of {made.own.cloud.threshold:.3g} or more"),
            (f"{PREVIEWS}/", "picture, depth (dark is near), confidence, and what becomes points"),
            (OVERVIEW, "points and cameras from above and from the front"),
        ],
        words=("holds",),
    )  # fmt: skip
    apart = made.differences
    tables = [table] if apart is None else [table, differences_table(apart)]
    took = facts["forecast"]["seconds"]
    forecast = "" if took is None else f", {took:.1f} s were forecast"
    lines = [
        f"The passes took {facts['seconds']:.1f} s{forecast}; the process had at its most"
        f" {format_bytes(facts['process_peak_bytes'])} of memory.",
        f"written: {out}" + (f", differences in {out / DIFFERENCES / NUMBERS}" if apart is not None else ""),
    ]
    names = [picture.name for picture in made.own.pictures.pictures]
    if renamed := sum(name != listed for name, listed in zip(names, listed_names(names), strict=True)):
        lines.append(f"Names in COLMAP's text have no blanks: {renamed} of the pictures are listed with _ instead.")
    if facts["weights"] == "random":
        lines.append("RANDOM WEIGHTS: this reconstruction means nothing.")
    values = {**facts, "path": str(out), **written._asdict()}
    if apart is not None:
        values["differences"] = apart.numbers
    return View(values, tables, lines).of_weights("random" if facts["weights"] == "random" else "trained")
