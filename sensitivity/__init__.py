"""Which layers does quantisation hurt? Hooks, activations in HDF5, and scores per layer and scheme.

| module | holds |
|---|---|
| `survey` | one FP32 pass that counts what every layer puts out |
| `capture` | forward hooks that see layers, and let them compute under a scheme |
| `metrics`, `ssim` | errors of a tensor against its reference, streamed or at once |
| `sketch` | damage at the outputs from random vector-Jacobian products |
| `response` | from the sketch to what a layer alone or a plan really does |
| `replay`, `damage` | true damage, computing only what a change reaches |
| `fewer_operations` | the same model in a cheaper order of operations, for such measurements |
| `minimal_filtering`, `onednn` | the convolutions and products of that order |
| `processes` | a measurement shared among processes, one a core |
| `kept_memory` | freed memory stays with the process meanwhile |
| `token_classes` | damage by camera, register and patch tokens |
| `scores` | every cheap score, in one registry |
| `recorder` | what is kept of every layer: sums of errors, sampled tokens |
| `segments` | vector-Jacobian products of a large model, one segment at a time |
| `memory` | what a profile will take, said beforehand |
| `parts` | steps that are done, on disk, so that a profile can be killed any time |
| `profiler` | the whole profile |
| `store` | ``profile.h5``, written and read |
| `tables` | what a profile says, as tables |
| `provenance` | what every file says about its origin |
| `atomic` | files that appear complete or not at all |
"""

from sensitivity.profiler import profile
from sensitivity.store import Profile, open_profile
from vggtkit.model.outputs import OUTPUTS

__all__ = ["OUTPUTS", "Profile", "open_profile", "profile"]
