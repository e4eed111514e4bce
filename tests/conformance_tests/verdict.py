"""Plugins made on the spot, each in a distribution of its own, and what the suite says about
them."""

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

OPTIONS = ["-rfExXs", "-p", "no:cacheprovider", "-p", "tunewright_conformance.plugin"]


@dataclass
class Subject:
    """A plugin for the suite to judge. Its module is called like the plugin."""

    kind: str
    source: str
    requires: str = "tunewright>=0.1"
    summary: str = "A plugin for a test."
    value: str = (
        ""  # of the entry point, with {name} for its name; empty: the class Subject of the module
    )
    more_points: str = ""  # further lines of entry_points.txt, with {name} for its name
    tried: str = ""  # the plugin's table in conformance.toml; empty: no such file
    files: dict[str, str] = field(
        default_factory=dict
    )  # path below the package, with {name} for its name → text


@dataclass
class Verdict:
    output: str

    def tests(self, word: str, subject: str) -> set[str]:
        """The names of the tests of a subject in pytest's summary behind FAILED, ERROR, XFAIL, …"""
        pattern = rf"^{word} \S*::(test_\w+)\[\w+-{re.escape(subject)}[-\]]"
        return set(re.findall(pattern, self.output, re.MULTILINE))

    def failed(self, subject: str = "subject") -> set[str]:
        return self.tests("FAILED", subject) | self.tests("ERROR", subject)


def judge(site: Path, subjects: dict[str, Subject], *arguments: str) -> Verdict:
    """Install subjects, by name, below `site`, and run the suite on them in one process of its
    own."""
    for name, subject in subjects.items():
        _install(site, name, subject)
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # other plugins cost a second or two a start
        "OMP_NUM_THREADS": "1",
    }
    wanted = [f"--plugin={name}" for name in subjects]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *wanted, *arguments]
    done = subprocess.run(
        command, cwd=site, env=environment, capture_output=True, text=True, check=False
    )
    return Verdict(done.stdout + done.stderr)


def _install(site: Path, name: str, subject: Subject) -> None:
    info = site / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    needs = f"Requires-Dist: {subject.requires}\n" if subject.requires else ""
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\nSummary: {subject.summary}\n"
    (info / "METADATA").write_text(head + needs, encoding="utf-8")
    value = (subject.value or "{name}:Subject").format(name=name)
    points = (
        f"[tunewright.{subject.kind}]\n{name} = {value}\n{subject.more_points.format(name=name)}"
    )
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    written = {"__init__.py": subject.source, **subject.files}
    if subject.tried:
        written["conformance.toml"] = f"[[{name}]]\n{subject.tried}\n"
    for path, text in written.items():
        target = site / name / path.format(name=name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")
