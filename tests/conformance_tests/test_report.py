"""`plugins check NAME --report FILE.json`: results, versions, and the SHA-256 of the plugins."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright import registry
from tunewright_conformance.report import _plugins, as_markdown, digest, package

SUITE = """
import pytest
def test_good(): ...
def test_bad(): assert 1 == 2, "not equal"
@pytest.mark.skip(reason="no GPU here")
def test_left_out(): ...
@pytest.mark.xfail(strict=True, reason="It has no stop token.")
def test_declared(): assert False
@pytest.mark.xfail(strict=True, reason="Outdated.")
def test_outdated(): ...
@pytest.fixture
def broken(): raise RuntimeError("no fixture | here")
def test_setup(broken): ...
"""


def test_every_outcome_is_told(tmp_path: Path) -> None:
    tmp_path.joinpath("test_it.py").write_text(SUITE)
    report = tmp_path / "out/report.json"
    options = [f"--conformance-report={report}", "--plugin=scheduler:cosine", str(tmp_path)]
    alone = ["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-c", "/dev/null"]
    command = [sys.executable, "-m", "pytest", *alone, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(report.read_text("utf-8"))
    outcomes = {test["test"]: (test["outcome"], test.get("reason", "")) for test in found["tests"]}
    assert outcomes.pop("test_good") == ("passed", "")
    assert outcomes.pop("test_left_out") == ("skipped", "no GPU here")
    assert outcomes.pop("test_declared") == ("deviates", "It has no stop token.")
    bad = {"test_bad": "AssertionError: not equal", "test_setup": "RuntimeError: no fixture | here"}
    for test, reason in bad.items():
        assert outcomes.pop(test) == ("failed", reason)
    assert outcomes.pop("test_outdated")[0] == "failed"
    assert outcomes == {}
    assert found["totals"] == {"passed": 1, "failed": 3, "skipped": 1, "deviates": 1}
    assert found["versions"]["python"] == sys.version.split()[0]
    (plugin,) = found["plugins"]
    assert (plugin["distribution"], len(plugin["sha256"])) == ("tunewright-schedulers", 64)
    text = report.with_suffix(".md").read_text("utf-8")
    assert text == as_markdown(found)
    assert "1 passed, 3 failed, 1 deviates as declared, 1 skipped." in text
    assert "no fixture \\| here" in text
    assert plugin["sha256"] in text


def test_each_plugin_has_its_own_totals() -> None:
    """A name may be the beginning of another one."""
    entries = [registry.find("scheduler", name) for name in ("constant", "constant_with_warmup")]
    ids = ("a[scheduler-constant]", "b[scheduler-constant-10]", "a[scheduler-constant_with_warmup]")
    tests = [{"test": f"test_{name}", "outcome": "passed"} for name in (*ids, "c", "d[other]")]
    tests[1]["outcome"] = "failed"
    one, other = _plugins(entries, tests)
    assert one["totals"] == {"passed": 1, "failed": 1}
    assert other["totals"] == {"passed": 1}


def test_the_sum_is_that_of_the_files(tmp_path: Path) -> None:
    source = package(registry.find("scheduler", "cosine"))
    copy = shutil.copytree(source, tmp_path / "one" / source.name)
    copy.joinpath("__pycache__").mkdir(exist_ok=True)
    copy.joinpath("__pycache__/x.pyc").write_bytes(b"code")
    assert digest(copy) == digest(source)
    copy.joinpath("more.txt").write_text("")
    assert digest(copy) != digest(source)


@pytest.mark.parametrize("words", [["--report", "a.json"], ["cosine", "--report", "a.txt"]])
def test_a_report_needs_plugins_and_a_json_file(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunewright", "plugins", "check", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
