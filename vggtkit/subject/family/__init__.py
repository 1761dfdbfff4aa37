"""Relatives of VGGT, used through their own packages: what is published of each, as a TOML file beside this one.

| module | holds |
|---|---|
| `description` | the files as typed values; which of them a module is |
| `member` | a subject by such a description |

``--model package.module:function`` with a function of yours that builds one (Pi3, Depth Anything 3, ...) is enough: the
class of what it makes is looked up here. No code of theirs is in this project. ``facebook/VGGT-1B-Commercial`` is the
network of ``vggt-1b`` with other weights, and is given by its name.
"""

from vggtkit.subject.family.description import Description, described, descriptions
from vggtkit.subject.family.member import MemberSubject

__all__ = ["Description", "MemberSubject", "described", "descriptions"]
