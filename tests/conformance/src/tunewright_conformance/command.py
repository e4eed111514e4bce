"""Tests for commands: fast help, one-line errors."""

import subprocess
import sys

from tunewright.registry import Entry
from tunewright_conformance.imports import HEAVY
from tunewright_conformance.suite import Suite

HELP = """
import sys
sys.argv[:] = ["tunewright", *sys.argv[1].split("."), "--help"]
from tunewright.cli import main
try:
    main()
finally:
    heavy = [name for name in {heavy!r} if name in sys.modules]
    if heavy:
        sys.exit(f"--help imports {{heavy}}")
"""


class TestCommand(Suite):
    kinds = ("command",)

    def test_help(self, entry: Entry) -> None:
        """`--help` says what the command does, without importing torch."""
        done = run("-c", HELP.format(heavy=HEAVY), entry.name)
        assert done.returncode == 0, done.stderr
        head, _, described = done.stdout.partition("Usage:")[2].partition("\n")
        assert entry.name.replace(".", " ") in head
        assert described.strip().partition("Options:")[0].strip(), "no docstring says what it does"

    def test_unknown_option(self, entry: Entry) -> None:
        """A mistake ends with exit code 2, without a traceback."""
        done = run("-m", "tunewright", *entry.name.split("."), "--no-such-option")
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
