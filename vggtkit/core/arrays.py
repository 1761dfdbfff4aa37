"""Names for the arrays that functions hand to each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Numbers in double precision; whoever takes or gives one says its shape."""
Ints = NDArray[np.int64]
"""Whole numbers: places, counts, bytes."""
Map = NDArray[np.float32]
"""A picture's worth of numbers, ``[H, W]``: depth, errors."""
Arrays = dict[str, NDArray[Any]]
"""Arrays by name, as an ``.npz`` file has them."""
