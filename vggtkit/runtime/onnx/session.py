"""A file of ONNX -> outputs, by ONNX Runtime on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggtkit.runtime.onnx.tensors import check_packages

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3


class Session:
    """A file that ONNX Runtime has loaded, with as many threads as torch computes with.

    Args:
        source: the file, or its bytes.

    Raises:
        InputError: onnxruntime is missing.
    """

    def __init__(self, source: Path | bytes) -> None:
        check_packages("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are needed for others
        given = source if isinstance(source, bytes) else str(source)
        self.session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(given, options, providers=[PROVIDER])
        self.inputs = tuple(value.name for value in self.session.get_inputs())
        self.outputs = tuple(value.name for value in self.session.get_outputs())

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Outputs by name; inputs that the file does not have are left out."""
        given = {name: inputs[name].detach().contiguous().numpy() for name in self.inputs}
        return dict(zip(self.outputs, map(torch.from_numpy, self.session.run(None, given)), strict=True))


def version() -> str:
    """Of ONNX Runtime; "" where it is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return ""
    return str(onnxruntime.__version__)
