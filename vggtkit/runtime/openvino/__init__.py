"""Plans executed by OpenVINO, whose processor plugin reads the files of ONNX that `vggtkit.runtime.onnx` writes.

| module | holds |
|---|---|
| `compiled` | a file -> outputs, by OpenVINO |
| `weights` | what every layer of a plan multiplies with |
| `calibration` | how large activations are on a scene |
| `backend` | the backend ``openvino`` |
"""
