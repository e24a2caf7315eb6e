"""Lets the tests import the other files of this directory, and the BTF builder of the headers' tests."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "headers")]
