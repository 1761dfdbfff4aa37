"""What the experiment guide expects: sizes, errors and speeds by scheme, and the scheme for every scenario.

These are the guide's guesses ("based on theory and experience"); reports set them beside what was measured.
"""

from __future__ import annotations

from typing import NamedTuple


class Expected(NamedTuple):
    """Guesses for one scheme.

    Attributes:
        compression: size of the FP32 file over the scheme's.
        mae: mean absolute error of the outputs.
        speed: time of FP32 over the scheme's.
    """

    compression: float | None
    mae: float | None
    speed: float | None


EXPECTED = {
    "int8_per_tensor_sym": Expected(4.0, 0.001247, 1.25),
    "int8_per_tensor_asym": Expected(None, 0.001089, None),
    "int8_per_channel_sym": Expected(3.96, 0.000523, 1.30),
    "int8_per_channel_asym": Expected(None, 0.000498, None),
    "int4_group_128": Expected(8.0, 0.007891, 1.43),
    "int4_group_64": Expected(None, 0.005234, None),
    "int4_group_32": Expected(7.69, 0.003821, None),
}
ADVISED = {
    "production": "int8_per_channel_sym",
    "edge": "int4_group_64",
    "accuracy": "int8_per_channel_asym",
    "prototype": "int8_per_tensor_sym",
}
"""The guide's scheme by scenario."""
EDGE_COMPRESSION = 7.0
"""The guide asks for 8 times smaller on the edge; with scales, norms and biases no file of INT4 gets there."""
