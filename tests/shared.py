"""The folder of goldens and demo data that our own machines have; tests that read it skip where it
is absent."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("TUNEWRIGHT_SHARED", "/work/shared"))
