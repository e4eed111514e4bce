"""Tests of the suite itself: starting it, selecting plugins, declaring deviations."""

import subprocess
import sys
from pathlib import Path

import pytest

from conformance_tests import broken_schedulers
from conformance_tests.test_hygiene import GOOD
from conformance_tests.verdict import Subject, Verdict, judge

pytest_plugins = "pytester"

REASON = "It draws with torch and cannot do so later."
DEVIATION = f"\n    deviations = {{'test_import_is_light': '{REASON}'}}\n"
SUBJECTS = {
    "good": Subject("logger", GOOD),
    "broken": Subject("logger", "raise OSError('no such luck')"),
    "needs_nothing": Subject("logger", GOOD, requires=""),
    "needs_any": Subject("logger", GOOD, requires="tunewright"),
    "wordless": Subject("logger", GOOD, summary=""),
    "deviating": Subject("logger", "import torch\n" + GOOD + DEVIATION),
    "outdated": Subject("logger", GOOD + DEVIATION),
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    site = tmp_path_factory.mktemp("site")
    (site / "torch.py").touch()  # the real one takes seconds to import
    return judge(site, SUBJECTS, "-k", "hygiene")


def test_a_plugin_without_its_library_is_not_let_work(tmp_path: Path) -> None:
    needs = "tunewright>=0.1\nRequires-Dist: no-such-library>=1"
    lacking = {"lacking": Subject("logger", GOOD, requires=needs)}
    output = judge(tmp_path, lacking, "-k", "test_class or test_whole_run").output
    assert "lacking needs no-such-library, which is not installed" in output
    assert "1 passed, 1 skipped" in output


def test_a_plugin_that_does_not_import_is_blamed_and_no_other(verdict: Verdict) -> None:
    assert "test_import_is_light" in verdict.failed("broken")
    assert "no such luck" in verdict.output
    assert verdict.failed("good") == set()


@pytest.mark.parametrize("name", ["needs_nothing", "needs_any", "wordless"])
def test_metadata_is_asked_for(verdict: Verdict, name: str) -> None:
    assert verdict.failed(name) == {"test_metadata"}


def test_a_declared_deviation_is_expected_to_fail(verdict: Verdict) -> None:
    assert verdict.tests("XFAIL", "deviating") == {"test_import_is_light"}
    assert verdict.failed("deviating") == set()
    assert REASON in verdict.output


def test_a_deviation_that_is_out_of_date_fails(verdict: Verdict) -> None:
    assert verdict.failed("outdated") == {"test_import_is_light"}
    assert "[XPASS(strict)]" in verdict.output


def test_an_unknown_name_is_an_error_that_says_what_is_close(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--plugin=jsonk")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no installed plugin is called 'jsonk'*did you mean 'jsonl'*"])


def test_the_plain_plugin_changes_nothing_for_other_projects(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(): pass")
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.no_fnmatch_line("*fixtures defined from tunewright*")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_pytest_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "def test_one():\n    import sys\n    assert not {'torch', 'transformers'} & "
        "set(sys.modules)"
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_all_installed_plugins_are_tested_by_the_package_name(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "--pyargs", "tunewright_conformance", "--collect-only", "-q"
    )
    result.stdout.fnmatch_lines(["*test_hooks[[]template-qwen3]", "*test_hooks[[]logger-jsonl]"])


def test_check_is_what_the_command_line_calls(tmp_path: Path) -> None:
    """`tunewright plugins check NAME` works in any folder, whatever pytest is told there."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    called = "import sys; from tunewright_conformance import check; sys.exit(check(sys.argv[1:]))"
    command = [sys.executable, "-c", called]
    done = subprocess.run(
        [*command, "logger:jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["pytest.ini"]
    assert (
        subprocess.run(
            [*command, "nobody"], cwd=tmp_path, capture_output=True, check=False
        ).returncode
        != 0
    )


@pytest.mark.slow
def test_what_is_tried_is_read_from_the_package(tmp_path: Path) -> None:
    """Options are tried one by one; what cannot run here is skipped with the reason."""
    tried = "options = [{ floor = 0.5 }, { floor = 0.1 }]\nends_at = 0.5"
    subjects = {
        "x_two": broken_schedulers.scheduler(tried=tried),
        "x_packages": broken_schedulers.scheduler(tried="packages = ['no_such_package']"),
        "x_needs": broken_schedulers.scheduler(tried="needs = 'It needs a server.'"),
    }
    verdict = judge(tmp_path, subjects, "-k", "test_end")
    assert "test_end[scheduler-x_two-floor=0.1]" in verdict.output
    assert "test_end[scheduler-x_two-floor=0.5]" not in verdict.output  # it passes
    assert "needs the package no_such_package" in verdict.output
    assert "It needs a server." in verdict.output


def test_a_key_that_no_test_knows_is_an_error(tmp_path: Path) -> None:
    verdict = judge(tmp_path, {"x_odd": broken_schedulers.scheduler(tried="tolerence = 1")})
    assert "x_odd: the tests of kind scheduler have no 'tolerence'" in verdict.output
