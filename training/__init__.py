"""How the bundled network was made, and how it goes on learning.

| module | holds |
|---|---|
| `train` | the training loop in rooms |
| `finetune` | going on from the bundled network in rooms and varied worlds |
| `worlds` | the varied worlds |
| `losses` | losses of the four heads |
| `correspondence` | true correspondences of rendered scenes |
| `attention` | attention as training wants it |
| `probes` | linear probes on the trunk's tokens |
| `heldout` | held-out figures |
| `export` | a run -> a network |
"""
