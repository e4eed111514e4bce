"""Runs one job and writes how it ended: `python shepherd.py FOLDER`.

A process of its own session, which outlives the server that started it. It imports only the
standard library. The job's output goes to a file: nobody has to read it. FOLDER/job.json has the
command; it writes FOLDER/pid (ids of this process and of the command's) and FOLDER/exit.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, path)


def main(folder: Path) -> None:
    """Run the command of FOLDER/job.json."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    child: subprocess.Popen[bytes] | None = None

    def passed_on(number: int, frame: FrameType | None) -> None:
        if child is not None:
            with contextlib.suppress(OSError):
                child.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, passed_on)
    with (folder / "log.txt").open("ab") as log:
        try:
            child = subprocess.Popen(
                job["command"],
                cwd=job["cwd"],
                env=os.environ | job["env"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own group, so that what it leaves behind is found
            )
        except OSError as error:
            log.write(f"error: cannot be started: {error}\n".encode())
            _write(folder / "exit", {"code": 127, "time": time.time()})
            return
        _write(folder / "pid", {"shepherd": os.getpid(), "child": child.pid, "time": time.time()})
        code = child.wait()
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):  # workers that a killed command has left behind
                os.killpg(child.pid, signal.SIGKILL)
    # as shells do: 128 and the signal's number
    _write(folder / "exit", {"code": code if code >= 0 else 128 - code, "time": time.time()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
