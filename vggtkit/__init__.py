"""What the tool stands on, from the bottom up; each package imports those above it in this list alone.

| package | holds |
|---|---|
| `core` | errors, registries, plugins, atomic files, journal of steps, provenance, memory, executors |
| `model` | VGGT, its configuration, loading and precision |
| `scenes` | where input comes from, and the truth about it |
| `metrics` | errors of tensors, outputs, cameras, depth and points |
| `quant` | weight formats: quantise, pack, count bytes, run quantised layers |
| `subject` | a model under study: how it is called, its outputs, layers, heads, segments and graph |
| `runtime` | cheaper ways to compute the same, for measurements |
"""
