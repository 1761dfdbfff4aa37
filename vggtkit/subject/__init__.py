"""A model under study: one protocol, asked by everything that measures, plans or reports.

| module | holds |
|---|---|
| `base` | the protocol: how a model is run, its layers, heads, outputs, segments, tokens, graph |
| `vggt` | VGGT |
| `module` | any torch module |
| `family` | relatives of VGGT: what is published of them, a TOML file each |
| `factory` | functions of the user that make models and inputs |
| `inputs` | the scene kind of what such a function yields |
| `outputs` | what a model returns, flattened by path |
| `state` | a pass that leaves no trace in the model |
| `graph` | which layers feed which |
| `opening` | from what a user names to a subject |
"""

from vggtkit.subject.base import Subject, TokenGrid
from vggtkit.subject.factory import is_factory, load_custom, load_inputs
from vggtkit.subject.inputs import INPUTS
from vggtkit.subject.module import ModuleSubject
from vggtkit.subject.opening import bare_subject, open_subject, subject_of
from vggtkit.subject.outputs import flatten_outputs
from vggtkit.subject.vggt import VGGTSubject

__all__ = [
    "INPUTS",
    "ModuleSubject",
    "Subject",
    "TokenGrid",
    "VGGTSubject",
    "bare_subject",
    "flatten_outputs",
    "is_factory",
    "load_custom",
    "load_inputs",
    "open_subject",
    "subject_of",
]
