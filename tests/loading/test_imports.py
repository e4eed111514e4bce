"""Families and adapters are light until they are used."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "tunewright_qwen",
        "tunewright_llama",
        "tunewright_full",
        "tunewright_freeze",
        "tunewright_lora",
        "tunewright_bitsandbytes",
    ],
)
def test_import_is_light(module: str) -> None:
    heavy = (
        "torch",
        "transformers",
        "peft",
        "bitsandbytes",
        "datasets",
        "tokenizers",
        "huggingface_hub",
    )
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_hub_is_light() -> None:
    code = (
        "import sys, tunewright_hf.models.hub; print('torch' in sys.modules, "
        "'huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
