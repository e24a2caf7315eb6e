"""Lets the tests here import the files beside them, which can also be run by hand."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
