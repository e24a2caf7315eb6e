import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SUITE = """
    import unittest
    import pytest

    @pytest.fixture
    def absent():
        pytest.skip("a fixture has nothing to give")

    @pytest.mark.bpf
    def test_bpf_skips_inside():
        pytest.skip("inside")

    @pytest.mark.vm
    def test_vm_skips_in_fixture(absent): ...

    @pytest.mark.vm
    @pytest.mark.skip(reason="marked")
    def test_vm_skips_by_mark(): ...

    @pytest.mark.vm
    @pytest.mark.skipif("True", reason="marked")
    def test_vm_skips_by_condition(): ...

    @pytest.mark.vm
    def test_vm_skips_for_a_module():
        pytest.importorskip("no_such_module")

    @pytest.mark.vm
    class TestVm(unittest.TestCase):
        def test_vm_skips_in_unittest(self):
            self.skipTest("unittest")

    @pytest.mark.vm
    @pytest.mark.xfail
    def test_vm_skips_under_xfail(absent): ...

    @pytest.mark.vm
    def test_vm_skips_in_subtest(subtests):
        with subtests.test():
            pytest.skip("in a subtest")

    def test_unit_skips():
        pytest.skip("neither bpf nor vm")

    @pytest.mark.skipif("True", reason="apt-get install prometheus")
    def test_unit_skips_for_a_tool(): ...

    @pytest.mark.vm
    @pytest.mark.xfail
    def test_vm_fails_as_expected():
        assert False

    @pytest.mark.bpf
    def test_bpf_runs(): ...
"""


@pytest.fixture
def suite(tmp_path):
    """Runs pytest on a small suite with a copy of our conftest.py; `lacking` is why BPF cannot be used."""

    def run(body, *, required, lacking=None):
        conftest = (HERE / "conftest.py").read_text() + f"\n\ndef why_not_bpf(): return {lacking!r}\n"
        (tmp_path / "conftest.py").write_text(conftest)
        packages = (HERE / "packages.py").read_text() + "\n\nPACKAGES['no-such-program'] = 'its-package'\n"
        (tmp_path / "packages.py").write_text(packages)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    bpf\n    vm\n    needs\n")
        (tmp_path / "test_it.py").write_text("\n".join(line[4:] for line in body.splitlines()))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment["CHAINBENCH_REQUIRE_BPF"] = "1" if required else ""
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--strict-markers"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_a_skip_is_a_message(suite):
    """On a user's machine no test fails because BPF is lacking."""
    result = suite(SUITE, required=False)

    assert result.returncode == 0
    assert "2 passed, 9 skipped, 1 xfailed" in result.stdout


def test_a_required_skip_is_a_failure(suite):
    """In CI every way to skip any test fails: it installs what they need."""
    result = suite(SUITE, required=True)

    failed = re.findall(r"^(?:FAILED|ERROR) test_it.py::(?:TestVm::)?(\w+)", result.stdout, re.MULTILINE)
    assert result.returncode == 1
    assert set(failed) == set(re.findall(r"def (test_\w+_skips\w*)", SUITE))
    assert "1 passed, 1 xfailed" in result.stdout


@pytest.mark.parametrize("required", [False, True])
def test_what_is_lacking_is_said(suite, required):
    """Without BPF a bpf test is not begun; its report says why, and what to do."""
    body = """
    import pytest

    @pytest.mark.bpf
    def test_bpf():
        raise AssertionError("begun")

    @pytest.mark.vm
    def test_vm(): ...
    """
    result = suite(body, required=required, lacking="No BCC: install it.")

    assert "No BCC: install it." in result.stdout
    assert "begun" not in result.stdout
    assert result.returncode == required


@pytest.mark.parametrize("required", [False, True])
def test_a_program_that_is_missing(suite, required):
    """The test is not begun; its report names the program, and the package that has it."""
    body = """
    import pytest

    @pytest.mark.needs("no-such-program")
    def test_program():
        raise AssertionError("begun")

    def test_without_it(): ...
    """
    result = suite(body, required=required)

    assert "no-such-program is missing: as root, `apt-get install its-package`." in result.stdout
    assert "begun" not in result.stdout
    assert result.returncode == required


@pytest.mark.parametrize("required", [False, True])
def test_a_file_that_skips_itself(suite, required):
    """The tests that a skipped file has are unknown, so in CI it fails, too."""
    body = """
    import pytest
    pytest.importorskip("no_such_module")
    """
    result = suite(body, required=required)

    assert "no_such_module" in result.stdout
    assert result.returncode == (2 if required else 5), result.stdout
