"""A stand-in of a checkpoint with modelling code, written and loaded."""

from pathlib import Path
from typing import Any

import torch
from loading_setup import load
from transformers import LlamaForCausalLM

from stand_in import write_stand_in
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import FakeRun

IDS = torch.arange(5, 45)[None]


def trusted(run: FakeRun, folder: Path, **request: Any) -> LoadedModel:
    return load(run, str(folder), twin="llama2", trust_remote_code=True, **request)


def written(run: FakeRun, folder: Path, **config: Any) -> LlamaForCausalLM:
    """A checkpoint of the stand-in in `folder`; returns the native model of the same weights."""
    return write_stand_in(folder, load(run, twin="llama2", weights="none").tokenizer, **config)


def changed(folder: Path, *changes: tuple[str, str], file: str = "modeling_stand_in.py") -> None:
    path = folder / file
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def logits(model: Any, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS, **inputs).logits.float()
    return found
