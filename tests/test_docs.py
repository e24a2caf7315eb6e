"""The documentation matches the code: generated parts are up to date, and everything that it names exists."""

import ast
import errno
import re
from pathlib import Path

import click
import pytest
import written_docs as made

from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.commands.main import main
from chainbench_agent.evidence.loss import PROGRAMS_SKIPPED
from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.export.markdown import metrics_table
from chainbench_agent.kernel.preflight import REMEDIES
from chainbench_agent.kernel.reading.sample_reader import LOSS_CAUSES
from chainbench_agent.loading import pmu_events
from chainbench_agent.probes import CATALOG
from chainbench_agent.probes.wait_categories import CATEGORIES
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.settings import Settings
from chainbench_agent.settings.environment_variables import ENV_PREFIX
from chainbench_agent.store.sqlite import HINTS, NO_DESCRIPTOR
from chainbench_agent.web.app import create_app
from chainbench_agent.web.request_models import RunsQuery, StartRequest

REPO = Path(__file__).parents[1]
PAGES = sorted(path for pattern in ("*.md", "[a-z]*/**/*.md") for path in REPO.glob(pattern))

TROUBLESHOOTING = (made.DOCS / "troubleshooting.md").read_text()

OTHERS_OPTIONS = {
    *("--network", "--pid", "--cgroupns", "--user", "--cap-add", "--cap-drop", "--security-opt", "--rm"),  # docker
    *("--system-site-packages", "--unix-socket", "--systemd"),  # python3 -m venv, curl, vng
}
OTHERS_COMMANDS = (
    "docker ",
    "prometheus ",
    "promtool ",
    "sudo systemctl ",
    "systemctl ",
    "curl ",
    "--cap-add",
    "journalctl ",
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))


def code_blocks(text):
    """Each block of code, fenced or indented, with lines joined after a trailing backslash."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^|\n\n)((?:    .*\n)+)", text)
    return [re.sub(r"\\\n\s*", "", block) for block in (*fenced, *indented)]


def code(text):
    """Every line of a code block, and every code span."""
    lines = [line.strip() for block in code_blocks(text) for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def prose(text):
    """The text without code, in which nothing is a link."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text):
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- Generated parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", made.PARTS, ids=lambda part: part[1])
def test_what_is_made_is_up_to_date(part):
    """`make docs` writes a part that is not."""
    page = (made.DOCS / part[0]).read_text()
    assert made.with_part(page, part[1], made.PARTS[part]()) == page, made.UPDATE


@pytest.mark.parametrize("page", ["", "<!-- a:begin -->", "<!-- a:end --><!-- a:begin -->"])
def test_missing_markers_are_an_error(page):
    with pytest.raises(ValueError, match="markers"):
        made.with_part(page, "a", "")


def test_a_part_is_replaced():
    page = made.with_part("before <!-- a:begin -->old<!-- a:end --> after", "a", "new\n")
    assert page == "before <!-- a:begin -->\nnew\n<!-- a:end --> after"


# --- Remedies ------------------------------------------------------------------------------------------


def problem_remedies():
    """The texts that the API uses as remedies, wherever it makes a problem."""
    parts = ("web", "server", "host", "kernel")
    paths = [path for part in parts for path in (REPO / "chainbench_agent" / part).rglob("*.py")]
    trees = [ast.parse(path.read_text()) for path in paths]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Assign) and "remedy" in ast.unparse(node.targets[0]).lower():
            given = [node.value]
        elif isinstance(node, ast.Call):
            place = {"problem": 2, "http_framing.refusal": 2, "_refuse": 1, "InputError": 2}.get(
                ast.unparse(node.func), len(node.args)
            )
            given = node.args[place : place + 1]
        else:
            continue
        yield from (text.value for text in given if isinstance(text, ast.Constant))


@pytest.mark.parametrize(
    "text",
    [
        *REMEDIES.values(),
        *map(pmu_events._remedy, (errno.EPERM, errno.ENOENT)),
        *HINTS.values(),
        *NO_DESCRIPTOR.values(),
        *problem_remedies(),
        *(f"`{cause}`" for cause in (*LOSS_CAUSES, PROGRAMS_SKIPPED)),
    ],
)
def test_every_remedy_is_on_the_page(text):
    """Remedies of doctor, PMU counters, the store and the API are on the page, and each cause of loss has its row."""
    assert text in TROUBLESHOOTING


def test_the_remedies_of_problems_are_found():
    """The test above sees remedies of each kind."""
    some = {"POST /stop ends it", "send fewer headers", "call the agent from a program", "send one of the two"}
    some |= {"send each filter once", "send a pid instead"}
    assert some <= set(problem_remedies())


# --- Everything that exists is named ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("evidence.md", Evidence.model_fields.keys() - {"sections"}),
        ("evidence.md", {*LOSS_CAUSES, PROGRAMS_SKIPPED}),
        ("evidence.md", {"sources", "unavailable", "scope", "top_processes", "other_processes", "sampling"}),
        ("api.md", {name for module in CATALOG for name in module.names if ":" in name}),
        ("api.md", StartRequest.model_fields.keys() - Labels.model_fields.keys()),
        ("api.md", RunsQuery.model_fields.keys() - {"before"}),
        ("operations.md", set(re.findall(r"alert: (\w+)", (REPO / "deploy/prometheus/alert_rules.yml").read_text()))),
    ],
)
def test_all_are_named(page, names):
    """The pages name all parts of the evidence, causes of loss, options, fields of calls and alerts."""
    named = set(code((made.DOCS / page).read_text()))

    assert {name for name in names if name not in named} == set()


def test_the_categories_of_waits_are_named():
    section = (made.DOCS / "evidence.md").read_text().partition("### Categories of waits")[2].partition("\n#")[0]
    rows = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)

    assert [row for row in rows if row != "Category"] == list(CATEGORIES)


def test_every_command_is_in_the_readme():
    readme = (REPO / "README.md").read_text()

    for name, command in main.commands.items():
        below = [f"{name} {one}" for one in command.commands] if isinstance(command, click.Group) else [name]
        assert all(f"chainbench-agent {one}" in readme for one in below)


# --- Everything that is named exists -------------------------------------------------------------------


@each_page
def test_links_lead_somewhere(page):
    """Each relative link leads to a file, and each anchor to a heading."""
    text = page.read_text()
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(text)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(REPO), link
        assert not anchor or anchor in anchors(target.read_text()), link


@each_page
def test_targets_of_make_exist(page):
    makefile = (REPO / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z -]+)?:", makefile, re.MULTILINE))
    named = {
        name for text in code(page.read_text()) for name in re.findall(r"(?:^|sudo |&& )make ([a-z][a-z-]*)", text)
    }

    assert named <= targets


@each_page
def test_files_exist(page):
    """Everything in code that looks like a path from the top of the repository is one."""
    tops = "|".join(re.escape(path.name) for path in REPO.iterdir() if path.is_dir() and path.name != ".git")
    named = {
        name.rstrip("./")
        for text in code(page.read_text())
        for name in re.findall(rf"(?<![\w./-])(?:{tops})/[\w./*-]*", text)
    }

    assert [name for name in named if not re.search(r"[A-Z]{4}", name) and not list(REPO.glob(name))] == []


def options(command):
    """Every option of a command and of its subcommands."""
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return found.union({"--help", "--version"}, *map(options, below))


@each_page
def test_options_exist(page):
    ours = [text for text in code(page.read_text()) if not text.removeprefix("$ ").startswith(OTHERS_COMMANDS)]
    named = {
        name
        for text in ours
        if not re.match(r"(?!chainbench-agent|serve|--|.*bin/chainbench-agent)\S+ ", text)
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    }

    assert named - OTHERS_OPTIONS <= options(main)


@each_page
def test_variables_exist(page):
    """They are settings, or a file of the repository reads them."""
    patterns = ("Makefile", ".ci/run", "scripts/*", "[a-z]*/**/*.py")
    sources = [path.read_text() for pattern in patterns for path in REPO.glob(pattern) if path.is_file()]
    read = set(re.findall(rf"{ENV_PREFIX}[A-Z_]+[A-Z]", "".join(sources)))
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | read

    assert set(re.findall(rf"{ENV_PREFIX}[A-Z_]+[A-Z]", page.read_text())) <= known


@each_page
def test_calls_exist(page):
    """Each `POST /path` is a route."""
    runs = Runs(MockCollector("", "", CATALOG), "m")
    rules = create_app(runs, lambda _: (b"", "")).url_map.iter_rules()
    routes = {(method, re.sub(r"<\w+>", "{id}", rule.rule)) for rule in rules for method in rule.methods}

    named = {
        (method, path.rstrip("."))
        for text in code(page.read_text())
        for method, path in re.findall(r"(GET|POST|DELETE) (/[\w./{}]*)", text)
    }

    assert named <= routes


@each_page
def test_series_exist(page):
    """/metrics has them, or the rules record them."""
    known = set(re.findall(r"chainbench_\w+", metrics_table(CATALOG)))
    named = re.findall(r"(?<![\w/])chainbench_(?!agent\b)\w+", page.read_text())

    assert [name for name in named if not is_series(name, known)] == []


def is_series(name, known):
    """Whether this is a known series, a part of a histogram, or the beginning of several, `chainbench_agent_*`."""
    whole = re.sub(r"_(bucket|count|sum)$", "", name)
    beginnings = tuple(one for one in known if one.endswith("_"))
    return whole in known or name.startswith(beginnings) or (name.endswith("_") and str(known).count(name) > 1)


def test_a_metric_is_added_in_five_steps():
    """The section has the number of steps in its heading, in order."""
    _, text = (REPO / "CONTRIBUTING.md").read_text().split("\n## Add a metric in five steps\n")

    steps = re.findall(r"^\*\*(\d)\. \w", text.partition("\n## ")[0], re.MULTILINE)
    assert steps == list("12345")


def test_the_readme_is_for_two_minutes():
    """Longer texts have a page of their own."""
    assert len((REPO / "README.md").read_text().splitlines()) <= 140
