"""Plans executed by OpenVINO, whose processor plugin reads the files of ONNX that `vggtkit.runtime.onnx` writes.

| module | holds |
|---|---|
| `session` | a file -> outputs, by OpenVINO |
| `attention` | magnitudes of what attention multiplies first |
| `backend` | the backend ``openvino`` |
"""
