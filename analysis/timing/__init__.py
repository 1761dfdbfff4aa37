"""Time and memory of inference, measured once and predicted from then on.

| module | holds |
|---|---|
| `shallow` | a large model with one of every kind of block, for measurements |
| `clock` | seconds of every layer, and of what is no layer, within a pass |
| `measure` | a model -> its kernel table |
| `limits` | the least that every stage could take here, by what takes it |
| `show` | a kernel table as tables |
| `activations` | the most memory that a pass holds, from shapes alone |
| `forecast` | memory and time of inference before anything runs |
"""
