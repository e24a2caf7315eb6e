"""How a guest ended that a test waits for (see the fixture `guest`)."""

from concurrent.futures import Future
from pathlib import Path

import pytest
from debian_kernel import Unavailable
from guest import GuestDied


def ended(results: Path, finished: Future[int]) -> tuple[Path, int]:
    """Where its results are, and its exit status; no guest is a skip, and one that died is a failure."""
    try:
        return results, finished.result()
    except Unavailable as reason:
        pytest.skip(str(reason))
    except GuestDied as reason:
        pytest.fail(str(reason), pytrace=False)
