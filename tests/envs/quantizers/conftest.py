"""These tests belong to the environment `quantizers`: `python3 scripts/dev.py env quantizers`."""

import importlib.util

if importlib.util.find_spec("hqq") is None:
    collect_ignore_glob = ["test_*.py"]
