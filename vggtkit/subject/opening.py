"""From what a user names to a subject."""

from __future__ import annotations

import torch
from torch import nn

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Say
from vggtkit.model import VGGT, VGGTConfig, architecture, load_vggt, skeleton
from vggtkit.quant import NameTable
from vggtkit.subject.base import Subject
from vggtkit.subject.factory import is_factory, load_custom
from vggtkit.subject.family import MemberSubject, described
from vggtkit.subject.module import ModuleSubject
from vggtkit.subject.vggt import VGGTSubject


def subject_of(model: nn.Module | Subject, source: str = "", names: NameTable | None = None) -> Subject:
    """A model as a subject; a subject stays as it is.

    >>> subject_of(nn.Sequential(nn.Linear(2, 2))).layers[0].name
    '0'
    """
    if isinstance(model, Subject):
        return model
    if isinstance(model, VGGT):
        return VGGTSubject(model, source, names)
    return (MemberSubject if described(model) else ModuleSubject)(model, source, names)


def open_subject(
    source: str,
    weights: str = "pretrained",
    device: str | torch.device = "cpu",
    *,
    names: NameTable | None = None,
    say: Say = lambda _: None,
) -> Subject:
    """Load the model that a source names.

    Args:
        source: as `load_vggt` takes it, or ``package.module:function``.
        weights: ``"pretrained"`` or ``"random"``; a function gives its model the weights that it has.
        device: where it ends up.
        names: how roles and blocks are told from the names of layers.
        say: told what was done to make it loadable.

    Raises:
        InputError: as `load_vggt` and `load_custom`.

    >>> open_subject("tiny", weights="random").parameters
    9554700
    """
    if not is_factory(source):
        return VGGTSubject(load_vggt(source, weights, device, say), source, names)
    if weights != "pretrained":
        raise InputError(
            f"{setting('weights', weights)}: a model made by a function has the weights that this gives it"
        )
    subject = subject_of(load_custom(source, device, say), source, names)
    if isinstance(subject, MemberSubject) and subject.described.unverified:
        say(f"{subject.described.class_name} is known by its description; not verified: {subject.described.unverified}")
    return subject


def bare_subject(source: str, description: str = "") -> Subject:
    """The architecture of a subject, without values where it can be had without them.

    Args:
        source: as `open_subject` takes it.
        description: what `Subject.description` said of it, as files keep it.

    Raises:
        InputError: there is no such source.

    >>> bare_subject("vggt-1b").device
    device(type='meta')
    """
    if is_factory(source):
        return open_subject(source)
    model = skeleton(VGGTConfig.from_json(description)) if description else architecture(source)
    return VGGTSubject(model, source)
