"""Plans executed by OpenVINO, whose processor plugin reads the files of ONNX that `vggtkit.runtime.onnx` writes.

| module | holds |
|---|---|
| `session` | a file -> outputs, by OpenVINO |
| `backend` | the backend ``openvino`` |
"""
