"""A large VGGT with one block of every kind: what its layers take is what the whole model's take, many times over."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

import torch

from vggtkit.core.memory import LARGE
from vggtkit.model import VGGT
from vggtkit.runtime.stages import stages
from vggtkit.subject import Subject, VGGTSubject


@dataclass(frozen=True)
class Shallow:
    """A model to measure, and how it stands for another.

    Attributes:
        subject: with values.
        depths: how many modules the first of a list stands for, by the list's name.
        repeats: how often a stage stands in the other model.
    """

    subject: Subject
    depths: dict[str, int]
    repeats: dict[str, int]


def shallow(subject: Subject) -> Shallow | None:
    """A small stand-in for a large VGGT, with random weights, on which time does not depend; None for other models.

    Args:
        subject: the whole model, with or without values.

    >>> from vggtkit.subject import bare_subject
    >>> found = shallow(bare_subject("vggt-1b").with_heads(["camera"]))
    >>> found.depths["aggregator.frame_blocks"], found.repeats["frame blocks"], found.repeats["camera head"]
    (24, 24, 1)
    """
    if subject.vggt is None or subject.parameters <= LARGE:
        return None
    config = replace(subject.vggt.config, vit_depth=1, aggregator_depth=1, dpt_layer_idx=(0, 0, 0, 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = VGGTSubject(VGGT(config).eval(), subject.source)
    lists = Counter(re.sub(r"\.\d+$", "", name) for name in subject.segments() if re.search(r"\.\d+$", name))
    here = {stage: len(parts) for stage, parts in stages(small).items()}
    there = {stage: len(parts) for stage, parts in stages(subject).items()}
    return Shallow(small, dict(lists), {stage: there[stage] // here[stage] for stage in here})
