"""What a plan does end to end.

| module | holds |
|---|---|
| `run` | FP32, the uniform schemes and a plan on evaluation scenes |
| `evaluator` | what an assignment does on scenes |
| `results` | what an evaluation found: types, the verdict on the plan, JSON |
| `depth_maps` | the depth that every scheme sees on one scene, kept to look at |
| `cost` | what a scheme changes in cameras, depth and points |
"""
