"""A file of ONNX -> outputs, by OpenVINO on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggtkit.model.outputs import OUTPUTS
from vggtkit.runtime.onnx.tensors import check_packages

if TYPE_CHECKING:
    import openvino

EXTRA = "openvino"


class Compiled:
    """A file that OpenVINO has compiled, for as many threads as torch computes with.

    What is not in whole numbers is computed in bfloat16 where the processor multiplies in it.

    Args:
        path: of the file.

    Raises:
        InputError: openvino is missing.
    """

    def __init__(self, path: Path) -> None:
        check_packages("openvino", extra=EXTRA)
        import openvino

        core = openvino.Core()
        asked = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # cores are needed for others
        }  # fmt: skip
        self.compiled: openvino.CompiledModel = core.compile_model(path, "CPU", asked)
        self.inputs = tuple(port.get_any_name() for port in self.compiled.inputs)
        # a tensor has the names of all nodes that hand it on
        self.outputs = tuple(min(port.get_names() & set(OUTPUTS)) for port in self.compiled.outputs)

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Outputs by name; inputs that the file does not have are left out."""
        given = [inputs[name].detach().contiguous().numpy() for name in self.inputs]
        found = self.compiled(given, share_inputs=False)  # a shared one may be written into by another request
        return {name: torch.from_numpy(found[place]) for place, name in enumerate(self.outputs)}


def openvino_version() -> str:
    """Of OpenVINO; "" where it is not installed."""
    try:
        import openvino
    except ModuleNotFoundError:
        return ""
    return str(openvino.__version__).partition("-")[0]


def floats() -> str:
    """What is computed in that is not in whole numbers, by OpenVINO's own choice for this processor."""
    if not openvino_version():
        return "FP32"
    import openvino

    return "bfloat16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "FP32"
