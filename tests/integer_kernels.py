"""Whether this processor, with this torch, has kernels for whole numbers."""

import pytest

from vggtkit.runtime.kernels import usable_kernels
from vggtkit.runtime.processor import missing_for_int8

has_kernel = not missing_for_int8() and bool(usable_kernels())
needs_kernel = pytest.mark.skipif(not has_kernel, reason="no integer kernel on this processor")
