from chainbench_agent.compare.figures import figures, unit_of, values_of_runs


def evidence(made, **sections):
    return made.run(1, {"on_cpu": 1.0}, sections=sections).evidence


def test_numbers_are_found_by_their_path(made):
    """Not the slots of histograms, lists, texts, and what says how it was measured."""
    section = {
        "fsyncs": 3,
        "fsync_latency_us": {"count": 3, "sum_us": 6.0, "histogram": [{"bucket_us": 2.048, "count": 3}]},
        "top_processes": [{"pid": 1, "fsyncs": 3}],
        "other_processes": {"fsyncs": 0},
        "scope": {"queue_depth": "machine"},
        "sources": {"fsyncs": "raw_tracepoint:sys_enter"},
        "complete": True,
    }

    assert figures(evidence(made, io=section)) == {
        "io.fsyncs": 3,
        "io.fsync_latency_us.count": 3,
        "io.fsync_latency_us.sum_us": 6.0,
    }


def values(made, before, after):
    runs = [made.run(i, {"on_cpu": 1.0}, sections=sections) for i, sections in enumerate((before, after))]
    return values_of_runs(runs[:1], runs[1:])


def test_a_count_that_is_left_out_is_zero_and_a_latency_is_not(made):
    """Nobody waited: there is no median then."""
    found = values(made, {"locks": {"waits": 4, "p50_us": 2.5}}, {"locks": {}})

    assert found == ({"locks.waits": [4]}, {"locks.waits": [0]})


def test_a_section_that_one_side_lacks_is_not_compared(made):
    assert values(made, {"locks": {"waits": 4}}, {"io": {"reads": 1}}) == ({}, {})


def test_a_unit_is_the_end_of_the_name():
    assert [unit_of(path) for path in ("io.fsync_latency_us.sum_us", "biolatency.bytes", "offcpu.total_ms")] == [
        "µs",
        "bytes",
        "ms",
    ]
    assert unit_of("io.cache_hit_ratio") == "%"
    assert unit_of("syscall_counts.fsync") == ""
