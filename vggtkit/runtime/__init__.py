"""How layers are computed.

| module | holds |
|---|---|
| `forwards` | another function in place of a module's ``forward``, for a while |
| `fewer_operations` | the same model in a cheaper order of operations, for measurements |
| `winograd`, `onednn` | the convolutions and products of that order |
"""
