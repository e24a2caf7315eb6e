"""deploy/: the rules and the dashboard, against Debian's own Prometheus and a real agent."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from chainbench_agent.commands.own_agent import free_port, own_agent
from chainbench_agent.export.families import REPORT_FAMILIES, RUN_FAMILIES, RUNS
from chainbench_agent.export.health import HEALTH
from chainbench_agent.export.series import catalog_families
from chainbench_agent.probes import CATALOG

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana/chainbench.json").read_text())
LONG_S = 120
LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "d1"}
WORKLOAD = """
import os, socket, sys, threading
for number in range(23):
    with open(sys.argv[1], "wb") as file:
        file.write(b"x" * 65536)
        os.fsync(file.fileno())
ours, theirs = socket.socket(), socket.create_server(("127.0.0.1", 0))
ours.connect(theirs.getsockname())
theirs.accept()[0].sendall(b"x" * 53)
ours.recv(53)
turn = threading.Event()
threading.Timer(0.05, turn.set).start()
turn.wait()
"""

pytestmark = pytest.mark.needs("promtool")


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration():
    promtool("check", "config", RULES / "prometheus.yml")


@pytest.mark.parametrize("tests", ["alert_rules_test.yml", "alert_thresholds_test.yml"])
def test_rules_do_what_their_tests_say(tests):
    """The text of an alert, and the threshold at which it fires."""
    promtool("test", "rules", RULES / tests)


def test_every_threshold_has_a_test():
    """Each alert that compares with a number."""
    rules = [
        rule for group in yaml.safe_load((RULES / "alert_rules.yml").read_text())["groups"] for rule in group["rules"]
    ]
    tested = (RULES / "alert_thresholds_test.yml").read_text()
    compared = {rule["alert"] for rule in rules if re.search(r"[<>] *-?\d", rule["expr"]) or rule.get("for")}

    assert {name for name in compared if name not in tested} <= {"ChainbenchAgentDown", "ChainbenchRunsFail"}


def test_every_alert_has_a_test_in_which_it_fires():
    alerts = re.findall(r"- alert: (\w+)", (RULES / "alert_rules.yml").read_text())
    fires = re.findall(
        r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:", (RULES / "alert_rules_test.yml").read_text()
    )

    assert set(alerts) == set(fires)
    assert len(alerts) == len(set(alerts))


def expressions():
    """(panel, expression) of every query of the dashboard."""
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_only_series_that_exist_are_asked_for():
    """By name, in the rules and in the dashboard: what is misspelt would be an empty panel, or an alert that sleeps."""
    exported = {family.name for family in (RUNS, *RUN_FAMILIES, *REPORT_FAMILIES, *catalog_families(CATALOG))}
    exported |= {family.name for family, _ in HEALTH}
    texts = [expr for _, expr in expressions()]
    texts += [re.sub(r"(?m)^ *(#|- alert:|- name:).*", "", path.read_text()) for path in RULES.glob("*_rules.yml")]
    asked = {name for text in texts for name in re.findall(r"(?<![\w:])chainbench_\w+(?=[{\[ )\n/])(?!:)", text)}

    of_histograms = {f"{name}{end}" for name in exported for end in ("_bucket", "_count", "_sum")}
    unknown = {name for name in asked - exported - of_histograms if not name.startswith("chainbench_agent_process_")}
    assert unknown == set()
    assert len(asked) > 20


def test_the_dashboard_is_one_that_grafana_can_lay_out():
    """Each panel has its own id and place, and every variable that a query uses is declared."""
    panels = DASHBOARD["panels"]
    places = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert {name for _, expr in expressions() for name in re.findall(r"\$(\w+)", expr)} <= declared
    assert all(target["datasource"]["uid"] == "${datasource}" for p in panels for target in p.get("targets", ()))


@contextmanager
def running(log, *command, **environment):
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment, cwd="/")
        try:
            yield process
        finally:
            process.terminate()
            process.wait(LONG_S)


def until(condition, log):
    """The result of `condition`, as soon as there is one."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    return pytest.fail(f"never happened: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """A client of an agent that measures."""
    directory = tmp_path_factory.mktemp("agent")
    cache = {"CHAINBENCH_HEADER_CACHE": str(directory / "cache")}
    with own_agent("--backend", "ebpf", environment=cache) as (agent, _):
        yield agent


def address_of(agent):
    return agent.url.removeprefix("http://")


@pytest.fixture(scope="module")
def prometheus(agent, tmp_path_factory):
    """A function from an expression to its result, of a Prometheus with our files, one of them changed by two words."""
    directory = tmp_path_factory.mktemp("prometheus")
    for path in RULES.glob("*.yml"):
        shutil.copy(path, directory)
    config = directory / "prometheus.yml"
    config.write_text(config.read_text().replace("127.0.0.1:9090", address_of(agent)).replace(" 15s", " 1s"))
    address, log = f"127.0.0.1:{free_port()}", directory / "log"
    files = [f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]

    def query(expression):
        answer = requests.get(f"http://{address}/api/v1/query", params={"query": expression}, timeout=LONG_S).json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    with running(log, "prometheus", *files, f"--web.listen-address={address}"):
        until(lambda: requests.get(f"http://{address}/-/ready", timeout=LONG_S).ok, log)
        until(lambda: query('up{job="chainbench"} == 1'), log)
        query.address, query.log = address, log
        yield query


@pytest.fixture(scope="module")
def run(agent, prometheus, tmp_path_factory):
    """The evidence of a run with all sorts of things in it, when Prometheus has seen it; and a report."""
    with agent.collect(LABELS) as run:
        until(lambda: prometheus("chainbench_agent_program_seconds_total"), prometheus.log)
        subprocess.run([sys.executable, "-c", WORKLOAD, tmp_path_factory.mktemp("workload") / "file"], check=True)
        time.sleep(3)  # some scrapes, so that there are rates
    pair = {name: LABELS[name] for name in ("impl", "variant", "commit", "dataset")}
    agent.report(**pair, baseline_ms=1500, optimized_ms=1200, gain_pct=20)
    count = f"chainbench_syscalls_total == {run.evidence['syscall_counts']['total']}"
    until(lambda: prometheus(count) and prometheus("chainbench_gain_percent"), prometheus.log)
    return run.evidence


def filled(expression, values=None):
    """As Grafana asks: every variable at All, or at the value that it has there."""
    asked = expression.replace("$__rate_interval", "1m")
    return re.sub(r"\$(\w+)", lambda name: values[name[1]] if values else ".*", asked)


@pytest.fixture(params=["all", "of the run"])
def variables_chosen(request, agent, run):
    of_the_run = {**LABELS, "machine": run["run"]["machine"], "instance": address_of(agent)}
    return None if request.param == "all" else of_the_run


@pytest.mark.bpf
@pytest.mark.portable
@pytest.mark.parametrize(("panel", "expression"), expressions())
def test_every_panel_has_data(panel, expression, variables_chosen, prometheus, run):
    """From a Prometheus that scraped a real run, with every variable at All, and at what the run has."""
    assert run["source"] == "ebpf"
    asked = filled(expression, variables_chosen)

    found = prometheus(asked)

    assert found, (panel, asked)
    assert not [sample for sample in found if sample["value"][1] == "NaN"], (panel, found)


@pytest.mark.bpf
@pytest.mark.portable
def test_every_legend_names_labels_that_its_series_have(prometheus, run):
    """A label that no series of the panel has cannot distinguish them."""
    assert run
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            labels = {name for sample in prometheus(filled(target["expr"])) for name in sample["metric"]}
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named - labels <= {"reason"}, panel["title"]  # empty where nothing is wrong


def variables():
    """(series, label) of each variable of the dashboard that Prometheus is asked for."""
    asked = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    assert len(asked) == len(DASHBOARD["templating"]["list"]) - 1
    return [re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups() for query in asked]


@pytest.mark.bpf
@pytest.mark.portable
@pytest.mark.parametrize(("series", "label"), variables())
def test_every_variable_has_the_value_of_the_run(series, label, prometheus, agent, run):
    """As Grafana asks for them: without any, every panel would be empty."""
    expected = {**LABELS, "machine": run["run"]["machine"], "instance": address_of(agent)}
    url = f"http://{prometheus.address}/api/v1/label/{label}/values"

    answer = requests.get(url, params={"match[]": series}, timeout=LONG_S).json()

    assert answer == {"status": "success", "data": [expected[label]]}


@pytest.mark.bpf
@pytest.mark.portable
def test_prometheus_has_the_numbers_of_the_evidence(prometheus, run):
    """Through the scrape, the storage and the recording rules."""
    (fsyncs,) = prometheus('chainbench_syscall_count_total{syscall="fsync"}')
    assert float(fsyncs["value"][1]) == run["syscall_counts"]["fsync"] >= 23
    expected = run["syscall_counts"]["total"] / run["run"]["duration_ms"] * 1000
    until(lambda: prometheus(f"abs(run:chainbench_syscalls:per_second - {expected}) < 0.001"), prometheus.log)
    assert {rule["metric"]["__name__"] for rule in prometheus('{__name__=~"(run|instance):.+"}')} == set(
        re.findall(r"- record: (\S+)", (RULES / "recording_rules.yml").read_text())
    )


@pytest.mark.bpf
@pytest.mark.portable
def test_no_rule_fails(prometheus, run):
    """By Prometheus' own account of its evaluations."""
    assert run
    groups = requests.get(f"http://{prometheus.address}/api/v1/rules", timeout=LONG_S).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert len(rules) > 10
    assert [rule["name"] for rule in rules if rule["health"] not in ("ok", "unknown")] == []
