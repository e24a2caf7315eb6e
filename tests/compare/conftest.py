from types import SimpleNamespace

import pytest
from made_up_runs import distribution, measured, sides


@pytest.fixture
def made():
    """The functions that make runs up."""
    return SimpleNamespace(run=measured, sides=sides, distribution=distribution)
