"""Generates the parts of the documentation that come from the code.

make docs                                       # writes all of them
.venv/bin/python tests/written_docs.py          # the same

A part is between two markers of a page; the schema of the evidence is a separate file.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chainbench_agent.evidence.model import SCHEMA_VERSION
from chainbench_agent.evidence.schema import document
from chainbench_agent.export.markdown import metrics_table, table
from chainbench_agent.kernel.preflight import REMEDIES
from chainbench_agent.probes import CATALOG
from chainbench_agent.settings import Settings
from chainbench_agent.settings.environment_variables import ENV_PREFIX

REPO = Path(__file__).parents[1]
DOCS = REPO / "docs"
SCHEMA = DOCS / "evidence.schema.json"
HISTORY = DOCS / "evidence.md"
UPDATE = "`make docs` writes it"

DEPENDS = {
    "machine": "the host's name",
    "state_dir": "see [below](#the-store)",
    "header_cache": "`~/.cache/chainbench-agent`",
}
"""Defaults that depend on the machine."""


def settings_table() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        shown = DEPENDS[name] if field.default_factory else _default(field.default)
        rows.append((f"`--{name.replace('_', '-')}`", f"`{ENV_PREFIX}{name.upper()}`", shown, field.description or ""))
    return table(("Option", "Variable", "Default", "What it is"), rows)


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"`{text}`" if text else ""


def remedies_table() -> str:
    return table(("Check that fails", "What doctor says to do"), [(f"`{name}`", do) for name, do in REMEDIES.items()])


def events_table() -> str:
    rows = [
        (f"`{module.name}.{event.name}`", event.help, f"`{event.value}`" if event.value else "")
        for module in CATALOG
        for event in module.events
    ]
    return table(("Event", "What happened", "With it comes"), rows)


PARTS = {
    ("api.md", "events"): events_table,
    ("metrics.md", "metrics"): lambda: metrics_table(CATALOG),
    ("operations.md", "settings"): settings_table,
    ("troubleshooting.md", "doctor"): remedies_table,
}
"""(page, name of the part) → the text between its markers."""


def with_part(page: str, name: str, text: str) -> str:
    """Replaces the text between the markers in `page`.  Raises ValueError if they are missing."""
    first, last = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the markers {first} and {last} are missing: add them where the part belongs")
    return f"{before}{first}\n{text}{last}{after}"


# --- The evidence's schema, and its history ------------------------------------------------------------


def schema_text() -> str:
    """The schema as JSON, with one line for each key of a section."""
    return _lines(document(), 4) + "\n"


def _lines(value: Any, depth: int, margin: str = "") -> str:
    if not depth or not isinstance(value, dict) or not value:
        return json.dumps(value)
    inside = ",\n".join(
        f"{margin} {json.dumps(key)}: {_lines(one, depth - 1, margin + ' ')}" for key, one in value.items()
    )
    return f"{{\n{inside}\n{margin}}}"


def digest(schema: Any) -> str:
    """A digest of the schema without its descriptions, which are for people."""
    return hashlib.sha256(json.dumps(_for_programs(schema), sort_keys=True).encode()).hexdigest()[:12]


def _for_programs(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_for_programs(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _for_programs(one) for key, one in schema.items() if not (key == "description" and isinstance(one, str))
    }


def history() -> list[tuple[int, str]]:
    """(version, digest) of each row."""
    return [
        (int(version), of) for version, of in re.findall(r"^\| (\d+) \| `(\w+)` \|", HISTORY.read_text(), re.MULTILINE)
    ]


def breaks(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Everything that a program which relies on the old schema would miss in evidence of the new one."""
    for key, said in old.items():
        match key:
            case "properties" | "$defs":
                for name, one in said.items():
                    if name not in new.get(key, {}):
                        yield f"{where}{name} is gone"
                    else:
                        yield from breaks(one, new[key][name], f"{where}{name}.")
            case "items" | "additionalProperties":
                yield from breaks(said, new.get(key, {}), where)
            case "required":
                yield from (f"{where}{name} may be absent" for name in said if name not in new.get(key, ()))
            case "description" | "enum":
                pass
            case _ if new.get(key) != said:
                yield f"{where[:-1]} was {said}"


def against_the_rule() -> list[str]:
    """Differences from the committed schema of the same version that are not allowed."""
    committed = json.loads(SCHEMA.read_text()) if SCHEMA.exists() else {}
    same = committed.get("properties", {}).get("schema_version") == {"const": SCHEMA_VERSION}
    return list(breaks(committed, document())) if same else []


def main() -> int | str:
    if broken := against_the_rule():
        return f"raise SCHEMA_VERSION (chainbench_agent/evidence/model.py): {'; '.join(broken)}"
    SCHEMA.write_text(schema_text())
    for (page, name), made in PARTS.items():
        path = DOCS / page
        path.write_text(with_part(path.read_text(), name, made()))
    now = (SCHEMA_VERSION, digest(document()))
    return 0 if history()[-1:] == [now] else f"{HISTORY} lacks the row | {now[0]} | `{now[1]}` | … | what has changed |"


if __name__ == "__main__":
    sys.exit(main())
