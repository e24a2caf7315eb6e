"""Code blocks of docs/operations.md, which its readers type."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/operations.md"


def block(containing: str) -> str:
    """The only block of the page that contains these words, without its indentation."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", PAGE.read_text(), re.MULTILINE)
    (found,) = [text for text in blocks if containing in text]
    return re.sub("^    ", "", found, flags=re.MULTILINE).strip("\n") + "\n"
