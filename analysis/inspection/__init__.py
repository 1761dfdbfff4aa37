"""One layer from close by.

| module | holds |
|---|---|
| `layer` | its weights, activations, outliers, and what every format does to it |
| `report` | the same for people |
"""
