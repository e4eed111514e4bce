"""Resident memory that two real steps of a model of 100 M parameters add to the process, and the
plan of it: python … FOLDER SECTIONS."""

import json
import re
import sys
from pathlib import Path

from planning_setup import planned, resolved, workload

from tunewright.run import Run
from tunewright_hf.planning.probe import run_steps


def status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


folder, sections = Path(sys.argv[1]), json.loads(sys.argv[2])
small = resolved(folder, **sections)
run_steps(Run(small), 0, workload(small))  # imports, threads and their buffers
recipe = resolved(folder, layers=8, hidden=1024, **sections)
plan = planned(recipe, whole=True)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
run_steps(Run(recipe), 0, workload(recipe))
print(status("VmHWM") - before, plan.peak.peak)
