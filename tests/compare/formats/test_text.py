import re
from pathlib import Path

from chainbench_agent.compare.build import compare
from chainbench_agent.compare.formats import FORMATS


def test_faster(rendered):
    """The whole text: verdict, waterfall, and why."""
    assert rendered("text") == Path(__file__).with_name("faster.txt").read_text()


def test_the_shown_lines_add_up(rendered):
    """Also rounded: what the rounding leaves over is with the others."""
    text = rendered("text", after=55.5)
    shown = [
        float(ms.replace("−", "-")) for ms in re.findall(r"^ +([−+][\d.]+) ms .*(?=█|all others|→)", text, re.MULTILINE)
    ]
    total = float(re.search(r"([−+][\d.]+) ms +the sum is exact", text)[1].replace("−", "-"))

    assert round(sum(shown), 1) == total


def test_inconclusive_says_what_is_certain_and_what_would_decide(rendered):
    text = rendered("text", after=100.0)

    assert "  INCONCLUSIVE  " in text
    assert "why: the interval includes no change  [interval_includes_zero]" in text
    assert re.search(r"what is certain: at most \d.\d % faster, at most \d.\d % slower", text)
    assert re.search(r"what would tell: at this noise 5 % takes about \d+ runs a side, 1 % \d+", text)
    assert "Where" not in text


def test_slower_says_where_it_came_from(rendered):
    text = rendered("text", after=200.0)

    assert "  SLOWER  " in text
    assert "ms came from: the wall clock of the main thread" in text


def test_not_comparable_names_the_condition(rendered):
    assert "      ended: shutdown → shutdown\n" in rendered("text", ended_by="shutdown")


def test_runs_in_blocks_are_noted(rendered):
    text = rendered("text", order="blocks")

    assert "10 + 10 runs, not alternated" in text
    assert "note: the runs did not alternate: a drift of the machine would look the same  [not_alternated]" in text


def test_the_cost_of_watching_is_mentioned(made, compared):
    """Where it is known, and a part of the change."""
    numbers = {"cpu_percent": 1.0, "events": 1, "ns_per_event": 1.0, "programs": [], "modules": {}}
    render = FORMATS["text"].render
    left = [made.run(i, {"on_cpu": 100.0}, evidence={"cost": {**numbers, "bpf_ns": 11_000_000}}) for i in range(8)]
    right = [made.run(i, {"on_cpu": 50.0}, evidence={"cost": {**numbers, "bpf_ns": 1_000_000}}) for i in range(8, 16)]

    assert "About 10.0 ms of it (20 %) is the watching." in render(compare(left, right))
    assert "is the watching" not in render(compared())
