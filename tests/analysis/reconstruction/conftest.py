"""What the tests of this package share."""

import pytest

from analysis.reconstruction.views import Views
from tests.analysis.reconstruction.known import known_views


@pytest.fixture
def views() -> Views:
    return known_views()
