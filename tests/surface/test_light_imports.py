"""The surface plugins import nothing heavy before they are used."""

import subprocess
import sys

import pytest

PACKAGES = [
    "console",
    "jsonl",
    "plot",
    "tensorboard",
    "chat",
    "data",
    "models",
    "new",
    "template",
    "engine_hf",
]
HEAVY = [
    "torch",
    "transformers",
    "matplotlib",
    "tensorboard",
    "rich.progress",
    "rich.console",
    "numpy",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_import_is_light(package: str) -> None:
    code = (
        f"import sys, tunewright_{package}; print(*[name for name in {HEAVY} if name in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
