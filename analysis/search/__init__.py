"""Plans sought by measuring.

| module | holds |
|---|---|
| `quality_target` | the smallest file that keeps a quality |
| `swaps` | measured swaps of equal bytes |
| `measuring` | assignments measured by any executor |
| `pareto` | size against damage over all budgets |
| `time_front` | size, time and damage |
"""
