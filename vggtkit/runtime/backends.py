"""The registry of backends."""

from __future__ import annotations

from vggtkit.core.registry import Registry
from vggtkit.runtime.backend import Backend
from vggtkit.runtime.cuda import Cuda
from vggtkit.runtime.int8 import Int8Backend
from vggtkit.runtime.onnx.backend import OnnxRuntime
from vggtkit.runtime.openvino.backend import OpenVino
from vggtkit.runtime.reference import Reference

BACKENDS: Registry[Backend] = Registry("backend")
REFERENCE = Reference.key
"""The one that runs everything, exactly."""

for backend in (Reference(), Int8Backend(), Cuda(), OnnxRuntime(), OpenVino()):
    BACKENDS.register(backend.key, backend)
