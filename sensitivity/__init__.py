"""Which layers does quantisation hurt? Hooks, activations in HDF5, and scores per layer and scheme.

| module | holds |
|---|---|
| `survey` | one FP32 pass that counts what every layer puts out |
| `footprint` | the memory that a profile will take, said beforehand |
| `capture` | forward hooks that see layers, and let them compute under a scheme |
| `recorder` | of every layer, sums of errors and sampled tokens |
| `jacobian_sketch` | damage at the outputs from random vector-Jacobian products |
| `weight_errors` | errors of weights in all formats, multiplied with gradients |
| `attention_gradients` | gradients of attention for many cotangents, from weights worked out once |
| `input_rounding` | the same of rounded inputs of layers, from the same passes |
| `migration` | factors worth folding out of inputs into weights |
| `gradient_precision` | the type that backward passes compute in |
| `going_back` | a pass back through a model on the route that it allows |
| `segments` | vector-Jacobian products of a large model, one segment at a time |
| `response` | from the sketch to what a layer alone or a plan really does |
| `replay`, `damage` | true damage, computing only what a change reaches |
| `layer_rows`, `moments` | what weights are multiplied by, and its second moments: for calibrated rounding |
| `output_factors` | the same of inputs and output channels, by what an error does to the outputs |
| `paired_moments` | the same of what quantised layers before them leave of the inputs |
| `rounding_gain` | what calibrated rounding leaves of every layer's error |
| `rounding_left` | what a rounding that is done leaves of every layer's damage, on other scenes |
| `token_classes` | damage by camera, register and patch tokens |
| `scores` | every cheap score, in one registry |
| `dataflow`, `route` | which modules of a foreign model may be segments, and how it is differentiated |
| `differentiable` | a forward that can be differentiated, whatever it says of gradients itself |
| `own_derivatives` | layers of models that bring their own derivatives, held against what they do |
| `scrutiny` | what is asked of a model before it is profiled, and said of it afterwards |
| `estimate_check` | estimated beside measured damage |
| `profiler` | the whole profile |
| `profile_steps` | the steps of a profile, which workers may share |
| `assembly` | what the steps left on disk, brought together in the file |
| `hdf5` | HDF5 files that may come from anybody, and a disk that may be full |
| `writer`, `store` | ``profile.h5``, written; read |
"""

from sensitivity.profiler import profile
from sensitivity.store import Profile, open_profile
from vggtkit.model.outputs import OUTPUTS

__all__ = ["OUTPUTS", "Profile", "open_profile", "profile"]
