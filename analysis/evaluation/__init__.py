"""What a plan does end to end.

| module | holds |
|---|---|
| `run` | FP32, the uniform schemes and a plan on evaluation scenes |
| `candidates` | what is compared: uniform schemes, further plans, the plan |
| `kept` | what is done so far, on disk |
| `watch` | whoever looks at outputs meanwhile |
| `evaluator` | what an assignment does on scenes |
| `results` | what an evaluation found: types, the verdict on the plan, JSON |
| `depth_maps` | the depth that every scheme sees on one scene, kept to look at |
| `cost` | what a scheme changes in cameras, depth and points |
"""
