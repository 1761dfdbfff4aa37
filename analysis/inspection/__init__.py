"""One layer from close by.

| module | holds |
|---|---|
| `layer` | its weights, activations, outliers, and what every format does to it |
| `report` | the same for people |
| `results_file` | the same as JSON, and back |
"""
