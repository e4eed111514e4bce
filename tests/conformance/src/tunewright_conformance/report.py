"""Report of a conformance run: which tests passed, of which plugins, with which versions.

It holds the SHA-256 of what was tested, so that a reader can compare it with what is installed. It
is not signed: it proves nothing about who ran the tests.
"""

import hashlib
import importlib.util
import json
import re
from collections import Counter
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tunewright.folder import versions
from tunewright.registry import Entry
from tunewright_conformance.subjects import label, package_of, select

FORMAT = 1
#: outcome of a test → words for people
OUTCOMES = {
    "passed": "passed",
    "failed": "failed",
    "deviates": "deviates as declared",
    "skipped": "skipped",
}


class Reporter:
    """pytest plugin that collects the outcome of each test and writes the report at the end."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path, self.names = path, names
        self.tests: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = _outcome(report)
        if outcome is None:
            return
        module, _, test = report.nodeid.rpartition("/")[2].partition("::")
        about: dict[str, Any] = {"test": test.rpartition("::")[2], "of": module.removesuffix(".py")}
        about |= {"outcome": outcome, "seconds": round(report.duration, 2)}
        if reason := _reason(report, outcome):
            about["reason"] = reason
        self.tests.append(about)

    def pytest_sessionfinish(self) -> None:
        report = {
            "format": FORMAT,
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "plugins": _plugins(select(self.names), self.tests),
            "versions": _versions(),
            "totals": dict(Counter(test["outcome"] for test in self.tests)),
            "tests": self.tests,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
        self.path.with_suffix(".md").write_text(as_markdown(report), "utf-8")


def _outcome(report: pytest.TestReport) -> str | None:
    """The outcome that counts, once a test: that of its call, or of a setup that ended it."""
    if hasattr(report, "wasxfail"):
        return "deviates" if report.skipped else "failed"
    if report.failed:
        return "failed"
    if report.skipped:
        return "skipped"
    return "passed" if report.when == "call" else None


def _reason(report: pytest.TestReport, outcome: str) -> str:
    """Reason in one line: of a skip, a declared deviation, or the last line of a failure."""
    if outcome == "deviates":
        return str(getattr(report, "wasxfail", "")).removeprefix("reason: ")
    if outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    if outcome == "failed":
        lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
        return " ".join((lines or ["failed"])[0].removeprefix("E").split())[:300]
    return ""


def _versions() -> dict[str, str]:
    """Versions of what a test depends on besides the plugin."""
    found = versions({})
    libraries = {name: str(version) for name, version in found["libraries"].items()}
    ours = {name: metadata.version(name) for name in ("tunewright-hf", "tunewright-conformance")}
    return {"python": found["python"], "platform": found["platform"], **libraries, **ours}


def _plugins(entries: list[Entry], tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each plugin with the outcomes of its tests, whose ids hold its label. Where one label is the
    beginning of another, the longer one counts."""
    outcomes: dict[str, Counter[str]] = {label(entry): Counter() for entry in entries}
    longest = sorted(outcomes, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest))})(?!\w)")
    for test in tests:
        if match := pattern.search(test["test"].partition("[")[2]):
            outcomes[match[1]][test["outcome"]] += 1
    return [_about(entry, dict(outcomes[label(entry)])) for entry in entries]


def _about(entry: Entry, totals: dict[str, int]) -> dict[str, Any]:
    return {
        "plugin": label(entry),
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "summary": entry.summary,
        "sha256": digest(package(entry)),
        "totals": totals,
    }


def package(entry: Entry) -> Path:
    """Folder or file of the package that holds a plugin."""
    name = package_of(entry)
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no package {name}")
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0]) if folders else Path(str(spec.origin))


def digest(package: Path) -> str:
    """SHA-256 over the files of a package: for each, in the order of their paths, its path below
    the package, a zero byte, its own SHA-256 in hexadecimal, and a newline. Byte code is left out,
    so a checkout and the wheel made of it have the same."""
    files = [package] if package.is_file() else package.rglob("*")
    named = {file.relative_to(package.parent).as_posix(): file for file in files if file.is_file()}
    whole = hashlib.sha256()
    for name, file in sorted(named.items()):
        if "__pycache__" not in file.parts:
            inner = hashlib.sha256(file.read_bytes()).hexdigest()
            whole.update(f"{name}\0{inner}\n".encode())
    return whole.hexdigest()


def as_markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    parts = ["# Conformance report\n"]
    counts = report["totals"]
    totals = [f"{counts[key]} {said}" for key, said in OUTCOMES.items() if key in counts]
    parts.append(f"{', '.join(totals) or 'no test was run'}. Run on {report['date']}.\n")
    rows = ["| plugin | distribution | SHA-256 of its package |", "|---|---|---|"]
    for each in report["plugins"]:
        owner = f"{each['distribution']} {each['version']}"
        rows.append(f"| {each['kind']} `{each['name']}` | {owner} | `{each['sha256']}` |")
    parts.append("\n".join(rows) + "\n")
    others = [test for test in report["tests"] if test["outcome"] != "passed"]
    if others:
        rows = ["| test | outcome | reason |", "|---|---|---|"]
        for test in others:
            reason = test.get("reason", "").replace("|", "\\|")
            rows.append(f"| `{test['test']}` | {OUTCOMES[test['outcome']]} | {reason} |")
        parts.append("\n".join(rows) + "\n")
    shown = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts.append(f"Versions: {shown}.\n")
    parts.append("The report is not signed: it proves nothing about who ran the tests.\n")
    return "\n".join(parts)
