"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference numbers and real pictures beside the repository; absent in most clones."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared, which is not part of the project")
    return folder
