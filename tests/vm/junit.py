"""Reads what pytest in the guest reports."""

import xml.etree.ElementTree as ET


def verdicts(junit: str) -> dict[str, str]:
    """Return each test's name and what is wrong with it: an empty string where it passed."""
    verdicts: dict[str, str] = {}
    for case in ET.fromstring(junit).iter("testcase"):  # noqa: S314 - our own guest wrote it
        name = f"{case.get('classname')}::{case.get('name')}"  # twice where the teardown failed as well
        verdicts[name] = verdicts.get(name, "") + "".join(map(complaint, case))
    return verdicts


def complaint(part: ET.Element) -> str:
    """Return what pytest says of a failure, an error or a skip, or what such a test printed."""
    if part.tag == "properties" or part.get("type") == "pytest.xfail":  # an expected failure did run
        return ""
    return f"{part.tag}: {part.text or part.get('message')}\n"
