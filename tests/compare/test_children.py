import pytest

from chainbench_agent.compare.children import expand_wait_for_children


def ms(lines):
    return {line: ns / 1e6 for line, ns in lines.items() if ns}


def test_children_one_by_one_explain_the_wait_exactly(made):
    """Each in a process of its own; their time is that of the wait."""
    children = [(200 + i, {"on_cpu": 3.0, "disk": 1.0}) for i in range(10)]
    found = expand_wait_for_children(made.run(1, {"on_cpu": 50.0, "wait_child": 40.0}, threads=children))

    assert ms(found.lines) == {"on_cpu": 50, "children: on_cpu": 30, "children: disk": 10}
    assert found.exact


def test_children_side_by_side_share_the_wait_out(made):
    """In proportion, and marked: they did 80 ms of work while 40 ms were waited."""
    children = [(200 + i, {"on_cpu": 6.0, "disk": 2.0}) for i in range(10)]
    found = expand_wait_for_children(made.run(1, {"wait_child": 40.0}, threads=children))

    assert ms(found.lines) == {"children: on_cpu": 30, "children: disk": 10}
    assert not found.exact


def test_threads_of_the_same_process_are_no_children(made):
    run = made.run(1, {"wait_child": 4.0}, threads=[(100, {"futex/lock": 99.0}), (200, {"on_cpu": 4.0})])

    assert ms(expand_wait_for_children(run).lines) == {"children: on_cpu": 4}


def test_a_childs_wait_for_its_own_children_is_not_counted_twice(made):
    run = made.run(1, {"wait_child": 10.0}, threads=[(200, {"wait_child": 10.0}), (201, {"on_cpu": 10.0})])
    found = expand_wait_for_children(run)

    assert (ms(found.lines), found.exact) == ({"children: on_cpu": 10}, True)


def test_the_lines_add_up_to_what_they_were(made):
    """To the nanosecond, also where the shares are no whole ones."""
    children = [(200, {"on_cpu": 1.0}), (201, {"disk": 1.0}), (202, {"pipe": 1.0})]
    found = expand_wait_for_children(made.run(1, {"on_cpu": 1.0, "wait_child": 1.000001}, threads=children))

    assert sum(found.lines.values()) == 2_000_001


@pytest.mark.parametrize("lines", [{"on_cpu": 5.0}, {"on_cpu": 5.0, "wait_child": 3.0}])
def test_without_a_wait_or_without_children_nothing_changes(made, lines):
    assert ms(expand_wait_for_children(made.run(1, lines)).lines) == lines
