"""How layers are computed.

| module | holds |
|---|---|
| `backend` | the protocol: what executes a packed model |
| `backends` | the registry of backends |
| `reference`, `int8`, `cuda` | dequantised by layer, exactly; in whole numbers; those of a GPU |
| `onnx` | VGGT as an ONNX file; the backend that runs it |
| `openvino` | the backend that runs such files by OpenVINO |
| `kernels`, `codes`, `runners`, `attention` | of ``int8``: products, weights, layers, attention in bfloat16 |
| `processor` | what the processor is called and can multiply |
| `machine` | the machine that a command runs on, in words |
| `stages` | seconds of a pass by stage |
| `kernel_table` | seconds of every layer and execution on a machine, and their file |
| `forwards` | another function in place of a module's ``forward``, for a while |
| `fewer_operations` | the same model in a cheaper order of operations, for measurements |
| `winograd`, `onednn` | the convolutions and products of that order |
"""
