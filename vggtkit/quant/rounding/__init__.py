"""How codes and scales of a weight are chosen within its format.

| module | holds |
|---|---|
| `base` | what a way of rounding is, and the registry |
| `nearest` | to the nearest; scales by the squared error |
| `gptq` | columns one after the other, with what is left made up for |
| `descent` | codes and scales that are there already, one by one to their best |
| `together` | the codes of all output channels together |
| `error_ratio` | what this leaves of the error of rounding to the nearest |
"""

from vggtkit.quant.rounding import gptq, nearest
from vggtkit.quant.rounding.base import NEAREST, ROUNDINGS, Rounding
from vggtkit.quant.rounding.gptq import aimed_at_exact_outputs, compensated

__all__ = ["NEAREST", "ROUNDINGS", "Rounding", "aimed_at_exact_outputs", "compensated", "gptq", "nearest"]
