"""Conformance tests that every Tunewright plugin has to pass."""

from pathlib import Path


def check(names: list[str], report: Path | None = None) -> int:
    """Test the installed plugins in `names` (NAME or KIND:NAME); all if it is empty.

    Prints pytest's short report and returns its exit code, 0 if all pass. pytest settings of the
    current folder are ignored. report: JSON file to write, with the same as Markdown beside it.
    """
    import os
    import subprocess
    import sys

    folder = Path(__file__).parent
    wanted = [f"--plugin={name}" for name in names]
    alone = [f"--rootdir={folder}", f"--config-file={os.devnull}", "-p", "no:cacheprovider"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(folder),
        *wanted,
        *alone,
        *([f"--conformance-report={report.absolute()}"] if report else []),
        "-q",
        "-rfExX",
        "--no-header",
    ]
    return subprocess.run(command, check=False).returncode
