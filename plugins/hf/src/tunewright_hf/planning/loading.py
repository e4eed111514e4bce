"""Models and batches of a plan: the architecture from its config alone, and the largest batch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models

from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models import hub, stored_weights
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.heads import auto_class, set_outputs
from tunewright_hf.models.loading import quiet, read_config

__all__ = ["config_only", "placeholder_tokenizer"]

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def config_only(
    request: LoadRequest, revision: str | None, media_part: Mapping[str, str]
) -> LoadedModel:
    """The model without values, from the config.json of a folder or of the hub.

    media_part: as of HfFamily. Raises RunError if there is no usable config.
    """
    trusted = request.trust_remote_code
    folder = hub.locate(request.model, revision, weights=False, trust_remote_code=trusted)
    with quiet(), one_line("cannot be built", request.model):
        config, _ = read_config(folder, trusted, lambda message, level: None)
        config = getattr(config, media_part.get(config.model_type, ""), config)
        request.media = False
        stored_weights.prepare(config, request, str(folder / "config.json"))
        for edit in request.config_edits:
            edit(config)
        config.get_text_config().__dict__.pop("quantization_config", None)
        config.__dict__.pop("quantization_config", None)
        set_outputs(config, request)
        arguments: dict[str, Any] = {"dtype": _dtype(request, config, folder)}
        # kernels of other packages take as much memory as sdpa
        if request.attention and not request.attention.startswith("flash"):
            arguments["attn_implementation"] = request.attention
        model = auto_class(request, config).from_config(
            config, trust_remote_code=trusted, **arguments
        )
    return LoadedModel(model, placeholder_tokenizer())


def _dtype(request: LoadRequest, config: Any, folder: Path) -> torch.dtype:
    """The dtype of the weights: as asked, else as config.json or the weights say, else bfloat16."""
    if request.dtype not in (None, "auto"):
        return getattr(torch, request.dtype)
    said = config.dtype or config.get_text_config().dtype
    if isinstance(said, torch.dtype):
        return said
    files = sorted(folder.glob("*.safetensors"))
    return _stored_dtype(files[0]) if files else torch.bfloat16


def _stored_dtype(path: Path) -> torch.dtype:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = (each["dtype"] for name, each in header.items() if name != "__metadata__")
    return next((_DTYPES[each] for each in found if each in _DTYPES), torch.bfloat16)


def placeholder_tokenizer() -> Any:
    """A tokenizer of two tokens, for a config without one."""
    backend = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<pad>"
    )
