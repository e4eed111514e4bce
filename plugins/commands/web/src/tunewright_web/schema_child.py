"""The recipe schema of the installed plugins, which a child process makes if it is not cached."""

import json
import subprocess
import sys
import threading
from typing import Any

from tunewright import schema_cache
from tunewright.errors import RunError

__all__ = ["installed_schema"]

_SECONDS = 120  # for the import of all installed plugins
_making = threading.Lock()


def installed_schema() -> tuple[dict[str, Any], list[str]]:
    """The schema, and a line for each plugin that is left out. Raises RunError.

    A broken plugin cannot harm this process: the child imports the plugins.
    """
    with _making:
        if (kept := schema_cache.kept()) is not None:
            return kept["schema"], kept["left_out"]
        command = [sys.executable, "-m", "tunewright", "recipe", "schema"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            problem = f"the installed plugins take longer than {_SECONDS} seconds to import"
            raise RunError(problem, hint="tunewright plugins check") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise RunError(said[-1] if said else "no schema", hint="tunewright plugins check")
    return json.loads(done.stdout), _left_out(done.stderr)


def _left_out(said: bytes) -> list[str]:
    lines = said.decode("utf-8", "replace").splitlines()
    return [line.removeprefix("left out: ") for line in lines if line.startswith("left out: ")]
