"""A metric that is registered is computed for every output, averaged, and named where it fails."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.metrics import METRICS, Metric
from vggtkit.metrics.outputs import OutputMetrics, average, compare_outputs


def largest(reference: Tensor, candidate: Tensor) -> float | None:
    """None for what is no map."""
    return float((reference - candidate).abs().max()) if reference.ndim == 5 else None


@pytest.fixture
def with_largest() -> Iterator[None]:
    METRICS.register("largest", Metric("largest", "largest", largest))
    yield
    METRICS.unregister("largest")


def outputs(shift: float) -> dict[str, Tensor]:
    return {"depth": torch.arange(64.0).reshape(1, 1, 8, 8, 1) + shift, "pose_enc": torch.full((1, 1, 9), shift + 1)}


@pytest.mark.usefixtures("with_largest")
def test_a_further_metric_stands_beside_the_eight() -> None:
    scenes = [compare_outputs(outputs(0.0), outputs(shift)) for shift in (1.0, 3.0)]
    assert [scene["depth"].extra for scene in scenes] == [{"largest": 1.0}, {"largest": 3.0}]
    assert scenes[0]["pose_enc"].extra == {}
    mean = average(scenes)
    assert mean["depth"].extra == {"largest": 2.0}
    assert mean["pose_enc"].extra == {}


def test_without_one_nothing_is_added() -> None:
    assert compare_outputs(outputs(0.0), outputs(1.0))["depth"].extra == {}


def test_every_field_is_registered_and_its_key_taken() -> None:
    fields = [name for name in OutputMetrics.__dataclass_fields__ if name != "extra"]
    assert set(METRICS) == set(fields)
    with pytest.raises(ValueError, match="metric 'mae' is registered already"):
        METRICS.register("mae", Metric("mae", "mine", largest))


@pytest.mark.parametrize("value", ["text", [1.0, 2.0]])
def test_a_metric_that_gives_no_number_is_named(value: object) -> None:
    METRICS.register("odd", Metric("odd", "odd", lambda _r, _c: value))  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(InputError, match=r"metric 'odd' fails on the output pose_enc \((ValueError|TypeError)"):
            compare_outputs(outputs(0.0), outputs(1.0))
    finally:
        METRICS.unregister("odd")


@pytest.mark.usefixtures("with_largest")
def test_a_broken_output_stays_broken() -> None:
    broken = outputs(0.0) | {"depth": torch.full((1, 1, 8, 8, 1), math.nan)}
    assert math.isnan(compare_outputs(outputs(0.0), broken)["depth"].extra["largest"])
