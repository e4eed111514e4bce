"""Tests for launchers: each process runs the same command line; its exit code is passed on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from tunewright.launch import VARIABLES
from tunewright.registry import Entry
from tunewright_conformance.suite import Suite

WORDS = ["train", "a recipe.yaml", "training.seed=1"]
#: launches what it gets: in a process of its own, as launchers handle signals
LAUNCH = """
import json, pathlib, sys
from tunewright.launch import LaunchRequest
from tunewright.registry import find, load
from tunewright_conformance.doubles import FakeRun
name, options, argv, dry_run, folder = json.loads(sys.argv[1])
plugin = load(find("launcher", name))
request = LaunchRequest(argv, 2, 1, pathlib.Path(folder), dry_run=dry_run)
made = plugin(plugin.Options.model_validate(options), name)
launched = made.launch(FakeRun(plugins={"launcher": made}), request)
print(launched.detail)
sys.exit(launched.code)
"""


class TestLauncher(Suite):
    kinds = ("launcher",)
    anywhere: ClassVar[frozenset[str]] = frozenset({"test_dry_run"})
    works = False

    def test_dry_run(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """A dry run says what would run, with all words of the command line, and starts and writes
        nothing."""
        done = launched(entry, options, WORDS, tmp_path / "run", dry_run=True)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in WORDS), done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_each_process(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """Each process runs the command line, with the variables of a worker."""
        done = launched(entry, options, ["version"], tmp_path / "run", variables=True)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert sorted(each["RANK"] for each in found) == ["0", "1"], done.stdout
        assert {each["WORLD_SIZE"] for each in found} == {"2"}
        assert all(each[name] for each in found for name in VARIABLES)

    def test_exit_code(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """The exit code of workers that fail is the launcher's."""
        done = launched(entry, options, ["no-such-verb"], tmp_path / "run")
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr


#: sitecustomize of workers: in place of the command line, prints the variables of a worker
PRINTS = f"""
import json, os, sys
if "RANK" in os.environ and "tunewright" in " ".join(sys.orig_argv):
    os.write(1, (json.dumps({{k: os.environ.get(k, "") for k in {VARIABLES!r}}}) + "\\n").encode())
"""


def launched(
    entry: Entry,
    options: dict[str, Any],
    argv: list[str],
    folder: Path,
    *,
    dry_run: bool = False,
    variables: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Launch two processes. variables: whether each prints its own as JSON."""
    environment = dict(os.environ)
    if variables:
        site = folder.parent / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(PRINTS)
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(site), *filter(None, [environment.get("PYTHONPATH")])]
        )
    for name in VARIABLES:
        environment.pop(name, None)
    given = json.dumps([entry.name, options, argv, dry_run, str(folder)])
    return subprocess.run(
        [sys.executable, "-c", LAUNCH, given],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
