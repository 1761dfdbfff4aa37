"""One small bank and one small batch for all tests of worlds."""

import pytest
from torch import Tensor

from training.worlds import make_bank, world_batch
from training.worlds.textures import Bank

WORLDS, VIEWS, SIZE = 12, 3, (24, 40)


@pytest.fixture(scope="session")
def bank() -> Bank:
    return make_bank(5, 24)


@pytest.fixture(scope="session")
def batch(bank: Bank) -> dict[str, Tensor]:
    return world_batch(WORLDS, VIEWS, SIZE, seed=(11,), bank=bank)
