"""The result of a stage: weights, tokenizer with chat template, generation settings with stop
tokens."""

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging

from tunewright.types import LoadedModel
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_hf.distributed.private import without_deepspeed
from tunewright_hf.models.modules import base_model

__all__ = ["save_result"]


def save_result(
    loaded: LoadedModel,
    folder: Path,
    template: Any = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a folder that transformers (or, for an adapter, PEFT) loads, and that says how to talk
    to the model.

    template: the template plugin that the model was trained with; None leaves chat template and
    stop tokens as they are. weights: by name, where the model's own are spread over processes.
    Weights are safetensors. The folder appears whole or not at all; RunError where it cannot be
    written.
    """
    logging.disable_progress_bar()  # of writing shards: what is to be shown goes through events
    with without_deepspeed():
        write_folder(folder, lambda temporary: _write(loaded, temporary, template, weights))


def _write(
    loaded: LoadedModel, folder: Path, template: Any, weights: dict[str, torch.Tensor] | None
) -> None:
    tokenizer = loaded.tokenizer
    base = base_model(loaded.model)
    if (
        template is not None and (source := template.chat_template()) is not None
    ):  # `auto` leaves it as it came
        tokenizer.chat_template = source
    stop = template.info.stop if template is not None else ()
    if base.can_generate():  # a model with another head has no settings for it
        base.generation_config = generation_config(base.generation_config, tokenizer, stop)
    if loaded.saves == "adapter":
        # PEFT would ask the hub whether the vocabulary has grown
        loaded.model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
        (folder / "README.md").unlink(
            missing_ok=True
        )  # PEFT's form, not filled in: the run folder has a real one
        if base.can_generate():
            base.generation_config.save_pretrained(folder)
    else:
        written = [each.dtype for each in (weights or {}).values() if each.is_floating_point()]
        base.save_pretrained(folder, state_dict=weights)  # which empties the dict
        if written:  # transformers has noted the format of the model's parts in memory
            base.config.dtype = written[0]
            base.config.save_pretrained(folder)
    (loaded.processor or tokenizer).save_pretrained(folder)


def generation_config(
    own: GenerationConfig, tokenizer: Any, stop: tuple[str, ...]
) -> GenerationConfig:
    """The model's settings with the template's stop tokens, in a form that transformers agrees to
    save."""
    settings = own.to_diff_dict() | {"pad_token_id": tokenizer.pad_token_id}
    known = tokenizer.get_vocab()
    if stop:
        ends = dict.fromkeys(
            known[token] for token in (*stop, tokenizer.eos_token) if token in known
        )
        settings["eos_token_id"] = list(ends) or None
    if settings.keys() & {"temperature", "top_p", "top_k", "min_p", "typical_p"}:
        settings["do_sample"] = True  # published models often forget it
    return GenerationConfig(**settings)
