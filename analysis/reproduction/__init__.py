"""VGGT-1B's own table: cameras under plans and uniform schemes on published test sets, beside published figures.

| module | holds |
|---|---|
| `published` | figures that others report, and the gate that the baseline has to get through |
| `variants` | what is measured: the baseline, uniform schemes, plans |
| `measuring` | every variant on every scene, piece by piece |
| `table` | the result, for people and for machines |
"""
