"""The bpf tests pass on Debian's kernels too, each booted under QEMU."""

import shlex

import pytest
from debian_kernel import SERIES, Unavailable, obtain, release
from guest import COMMAND_SECONDS, GuestDied, boot, tail
from junit import verdicts

FETCH_SECONDS = 600
PYTEST = shlex.split("""
    env CHAINBENCH_REQUIRE_BPF=1 python -m pytest -v -m bpf --timeout=900 --durations=10 --color=no
    -p no:cacheprovider --junitxml=/results/junit.xml -o junit_logging=all -o junit_log_passing_tests=false
""")


@pytest.mark.vm
@pytest.mark.timeout(FETCH_SECONDS + COMMAND_SECONDS + 60)
@pytest.mark.parametrize("name", SERIES)
def test_bpf_tests_pass(name, tmp_path):
    """Every bpf test runs and passes on the kernel, without a skip."""
    try:
        kernel = obtain(name)
        status = boot(kernel, tmp_path, PYTEST)
    except Unavailable as reason:
        pytest.skip(str(reason))
    except GuestDied as reason:
        pytest.fail(str(reason), pytrace=False)

    console = tail(tmp_path / "console.log")
    assert (tmp_path / "uname").read_text().strip() == release(kernel)
    assert (tmp_path / "junit.xml").exists(), f"pytest ended with status {status}. {console}"
    results = verdicts((tmp_path / "junit.xml").read_text())
    wrong = {test: text for test, text in results.items() if text}
    if wrong:
        details = "\n\n".join(f"--- {test}\n{text}" for test, text in wrong.items())
        summary = f"{len(wrong)} of {len(results)} bpf tests did not pass on {release(kernel)}:"
        pytest.fail(f"{summary}\n\n{details}\n\n{console}", pytrace=False)
    assert results, f"No bpf test ran. {console}"
    assert status == 0, console
