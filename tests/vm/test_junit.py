"""The results of a guest's tests, as the host reads them."""

from junit import verdicts


def test_only_passed_and_expected_failures_have_no_complaint():
    """A skip is as wrong as a failure."""
    report = """<testsuites><testsuite>
        <testcase classname="t" name="passes"/>
        <testcase classname="t" name="fails">
            <failure message="m">assert 0</failure><system-out>x</system-out>
        </testcase>
        <testcase classname="t" name="skips"><skipped type="pytest.skip" message="why"/></testcase>
        <testcase classname="t" name="xfails"><skipped type="pytest.xfail" message=""/></testcase>
        <testcase classname="t" name="ends badly"/>
        <testcase classname="t" name="ends badly"><error message="m">teardown</error></testcase>
    </testsuite></testsuites>"""

    assert verdicts(report) == {
        "t::passes": "",
        "t::fails": "failure: assert 0\nsystem-out: x\n",
        "t::skips": "skipped: why\n",
        "t::xfails": "",
        "t::ends badly": "error: teardown\n",
    }
