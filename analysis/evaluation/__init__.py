"""What a plan does end to end.

| module | holds |
|---|---|
| `run` | FP32, the uniform schemes and a plan on evaluation scenes |
| `candidates` | what is compared: uniform schemes, further plans, the plan |
| `kept` | what is done so far, on disk |
| `watch` | whoever looks at outputs meanwhile |
| `evaluator` | what an assignment does on scenes |
| `results`, `results_file` | what an evaluation found; as JSON |
| `advice`, `expected` | which scheme for whom, by stated rules; what the guide expects |
| `verdict` | what is recommended, and how the plan stands |
| `depth_maps` | the depth that every scheme sees on one scene, kept to look at |
| `cost` | what a scheme changes in cameras, depth and points |
"""
