"""Tiny twins, and checkpoints made of them."""

import json
from pathlib import Path
from typing import Any

import torch

from tunewright.types import AdapterRequest, LoadedModel, LoadRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_gpt2 import Gpt2
from tunewright_llama import Llama
from tunewright_qwen import Qwen

FAMILIES = {
    "qwen3": Qwen,
    "qwen3_moe": Qwen,
    "qwen2": Qwen,
    "qwen2_moe": Qwen,
    "llama3": Llama,
    "llama2": Llama,
    "gpt2": Gpt2,
}


def said(run: FakeRun) -> str:
    """The notices of a run, a line each."""
    return "\n".join(run.notices)


def load(
    run: FakeRun, model: str = "tiny", *, twin: str = "qwen3", options: Any = None, **request: Any
) -> LoadedModel:
    """Load with the family of `twin`; options: of the family, request: fields of LoadRequest."""
    family = FAMILIES[twin]
    chosen = {"tiny_variant": twin, "device": "cpu"} | (options or {})
    loaded: LoadedModel = family(family.Options(**chosen)).load_model(
        run, LoadRequest(model, **request)
    )
    return loaded


def apply(
    run: FakeRun, plugin: Any, loaded: LoadedModel | None = None, **request: Any
) -> LoadedModel:
    adapted: LoadedModel = plugin.apply_adapter(run, AdapterRequest(loaded or load(run), **request))
    return adapted


def save(loaded: LoadedModel, folder: Path) -> Path:
    """A checkpoint as transformers writes it."""
    loaded.model.save_pretrained(folder)
    (loaded.processor or loaded.tokenizer).save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits(loaded: LoadedModel) -> torch.Tensor:
    """Logits (1, 6, V) of one row of six tokens; for a model with a score (1, 1)."""
    with torch.no_grad():
        found: torch.Tensor = loaded.model.eval()(
            input_ids=torch.tensor([[5, 6, 7, 8, 9, 10]])
        ).logits
    return found


def train(loaded: LoadedModel, steps: int = 3) -> None:
    """A few large steps on all that is trainable."""
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    optimizer = torch.optim.SGD([p for p in loaded.model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(steps):
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def trainable(loaded: LoadedModel) -> set[str]:
    return {name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}
