"""VGGT as an ONNX file whose weights are a plan's.

| module | holds |
|---|---|
| `tensors` | a tensor of the file, made when it is written |
| `weights` | a quantised weight as what an operator of ONNX multiplies with |
| `styles` | which operator a format gets |
| `qdq` | the same between standard operators, as TensorRT reads them |
| `standins` | what layers and attention compute while the graph is traced |
| `trace`, `initializers` | a packed model -> a graph; its tensors |
| `splits`, `constants` | parts of tensors without sequences; no products of constants alone |
| `faults` | what ONNX Runtime is known to compute wrongly; a trial of every operator |
| `file` | a graph -> a file that was checked |
| `session` | a file -> outputs, by ONNX Runtime |
| `file_backend` | what backends have in common that run such files |
| `backend` | the backend ``onnxruntime`` |
"""
