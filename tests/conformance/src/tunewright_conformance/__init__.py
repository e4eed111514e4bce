"""The tests that every Tunewright plugin has to pass."""


def check(names: list[str]) -> int:
    """Test the installed plugins that `names` gives, as NAME or KIND:NAME; all where it is empty.

    Prints pytest's short report and returns its exit code, 0 where all pass. The current folder's
    settings for pytest do not count.
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
