"""Peaks of QLoRA, real and planned, in a process whose log nobody keeps: python … FOLDER BITS."""

import sys
from pathlib import Path

from planning_setup import planned, real, resolved

recipe = resolved(
    Path(sys.argv[1]),
    adapter={"name": "lora", "rank": 4},
    quantizer={"name": "bitsandbytes", "bits": int(sys.argv[2])},
)
print(real(recipe).peak.peak, planned(recipe, whole=True).peak.peak)
