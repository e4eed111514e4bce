"""Conformance tests that every Tunewright plugin has to pass."""


def check(names: list[str]) -> int:
    """Test the installed plugins in `names` (NAME or KIND:NAME); all if it is empty.

    Prints pytest's short report and returns its exit code, 0 if all pass. pytest settings of the
    current folder are ignored.
    """
    import os
    import subprocess
    import sys
    from pathlib import Path

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
        "-q",
        "-rfExX",
        "--no-header",
    ]
    return subprocess.run(command, check=False).returncode
