"""What a plan does end to end.

| module | holds |
|---|---|
| `run` | FP32, the uniform schemes and a plan on evaluation scenes |
| `evaluator` | what an assignment does on scenes |
| `results` | what an evaluation found: types, the verdict on the plan, JSON |
| `cost` | what a scheme changes in cameras, depth and points |
"""
