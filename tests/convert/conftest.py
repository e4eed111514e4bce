"""Checkpoints whose weights are pickles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from loading.loading_setup import load, save
from tunewright_conformance.doubles import FakeRun


def pickled(value: Any, path: Path, **options: Any) -> None:
    torch.save(value, path, **options)  # noqa: TID251


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny twin whose weights are pytorch_model.bin."""
    folder = save(load(FakeRun(), twin="llama2"), tmp_path / "pickled")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    pickled(weights, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "converted"
