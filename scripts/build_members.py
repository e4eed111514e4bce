"""Build an editable wheel (PEP 660) of every folder given, all in this one process.

    python scripts/build_members.py OUT FOLDER [FOLDER …]

pip starts several processes a member for the same work. That it may be one here is because all
members use flit_core, which keeps nothing between two builds;
docs/decisions/0001-editable-install.md has the times.
"""

import os
import sys
from pathlib import Path

from flit_core import buildapi


def build(out: Path, folders: list[Path]) -> None:
    """Write one wheel a folder to `out`, which is made. Raises ConfigError for a bad
    pyproject.toml."""
    out.mkdir(parents=True, exist_ok=True)
    start = Path.cwd()
    for folder in folders:
        os.chdir(folder)  # a build backend builds what stands in the working directory
        try:
            buildapi.build_editable(str(out))
        finally:
            os.chdir(start)


if __name__ == "__main__":
    target, *members = (Path(argument).absolute() for argument in sys.argv[1:])
    build(target, members)
