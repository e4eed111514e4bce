"""Build editable wheels (PEP 660) of all given folders in one process.

    python scripts/build_members.py OUT FOLDER [FOLDER …]

pip starts several processes per member for the same work. One process is enough here because all
members use flit_core, which keeps no state between builds; docs/decisions/0001-editable-install.md
has the times.
"""

import os
import sys
from pathlib import Path

from flit_core import buildapi


def build(out: Path, folders: list[Path]) -> None:
    """Write one wheel per folder to `out`, which is created. Raises ConfigError for an invalid
    pyproject.toml."""
    out.mkdir(parents=True, exist_ok=True)
    start = Path.cwd()
    for folder in folders:
        os.chdir(folder)  # a build backend builds the current directory
        try:
            buildapi.build_editable(str(out))
        finally:
            os.chdir(start)


if __name__ == "__main__":
    target, *members = (Path(argument).absolute() for argument in sys.argv[1:])
    build(target, members)
