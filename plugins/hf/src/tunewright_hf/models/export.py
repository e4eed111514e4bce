"""Save the result of a stage: weights, tokenizer with chat template, generation settings with stop
tokens."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

from tunewright.types import ExportRequest, LoadedModel, RunContext
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_hf.distributed.private import without_deepspeed
from tunewright_hf.models.devices import pick_device
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.modules import base_model

__all__ = [
    "export_device",
    "load_checkpoint",
    "merged",
    "quantize_while_loading",
    "save_merged",
    "save_result",
]


def save_result(
    loaded: LoadedModel,
    folder: Path,
    template: Any = None,
    weights: dict[str, torch.Tensor] | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Write a folder that transformers (or, for an adapter, PEFT) loads, with the template and stop
    tokens for inference.

    template: the template plugin used in training; None keeps chat template and stop tokens.
    weights: by name, if the model's own are sharded. max_shard_size: of a file with weights of a
    whole model. Weights are safetensors. The folder is written
    atomically; raises RunError if it cannot be written.
    """
    size = max_shard_size
    logging.disable_progress_bar()  # progress is reported by events
    with without_deepspeed():
        write_folder(folder, lambda temporary: _write(loaded, temporary, template, weights, size))


def merged(run: RunContext, request: ExportRequest) -> LoadedModel:
    """The model that is exported, with its adapter in the weights. The adapter is gone
    afterwards."""
    if request.loaded.saves == "adapter":
        request.loaded = run.plugin("adapter").merge(request.loaded)
    return request.loaded


def save_merged(
    run: RunContext,
    request: ExportRequest,
    folder: Path,
    dtype: str = "auto",
    shard_size: str = "5GB",
) -> None:
    """Write the merged model to a folder that transformers loads. dtype: name in torch, or auto.
    Raises RunError."""
    loaded = merged(run, request)
    if dtype != "auto":
        loaded.model.to(getattr(torch, dtype))
    save_result(loaded, folder, run.plugin("template"), max_shard_size=shard_size)


def load_checkpoint(run: RunContext, request: ExportRequest, **arguments: Any) -> Any:
    """Load the export's folder as transformers does, in the class of the run's model.

    arguments: further ones of from_pretrained. Raises RunError.
    """
    given = {"dtype": "auto", "trust_remote_code": run.trust_remote_code, **arguments}
    with one_line("transformers cannot load it", str(request.folder)):
        return _class(request).from_pretrained(request.folder, **given)


def quantize_while_loading(
    run: RunContext, request: ExportRequest, plain: Path, config: Any
) -> None:
    """Load the plain checkpoint in a folder with a quantization config of transformers, and write
    it to request.folder. Raises RunError."""
    with one_line("cannot be quantized", str(request.folder)):
        model = _class(request).from_pretrained(
            plain, quantization_config=config, dtype="auto", device_map={"": export_device(run)}
        )
        model.save_pretrained(request.folder)


def export_device(run: RunContext) -> torch.device:
    """The device of the family's options, where weights are quantized."""
    return pick_device(str(getattr(run.plugin("family").options, "device", "auto")))


def _class(request: ExportRequest) -> Any:
    own = type(base_model(request.loaded.model))
    return own if own.__module__.startswith("transformers.") else AutoModelForCausalLM


def _write(
    loaded: LoadedModel,
    folder: Path,
    template: Any,
    weights: dict[str, torch.Tensor] | None,
    max_shard_size: str,
) -> None:
    tokenizer = loaded.tokenizer
    base = base_model(loaded.model)
    # template `auto` keeps the checkpoint's
    if template is not None and (source := template.chat_template()) is not None:
        tokenizer.chat_template = source
        if loaded.processor is not None:  # it has one of its own, which would be saved in its place
            loaded.processor.chat_template = source
    stop = template.info.stop if template is not None else None
    if base.can_generate():  # models with another head have no generation settings
        base.generation_config = generation_config(base.generation_config, tokenizer, stop)
    if loaded.saves == "adapter":
        if weights is not None:  # buffers are not sharded: VeRA saves some
            buffers = dict(loaded.model.named_buffers(remove_duplicate=False))
            own = loaded.model.state_dict().items()
            weights = {name: each for name, each in own if name in buffers} | weights
        with warnings.catch_warnings():
            # PEFT takes layers that AdaLoRA left without a rank for shards that were not gathered
            warnings.filterwarnings("ignore", "Adapter .* have invalid shape")
            # PEFT would ask the hub whether the vocabulary has grown
            loaded.model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
        (folder / "README.md").unlink(
            missing_ok=True
        )  # PEFT's form, not filled in: the run folder has a real one
        if base.can_generate():
            base.generation_config.save_pretrained(folder)
    else:
        written = [each.dtype for each in (weights or {}).values() if each.is_floating_point()]
        # this empties the dict
        base.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size)
        if written:  # transformers has recorded the dtype of the parameters in memory
            base.config.dtype = written[0]
            base.config.save_pretrained(folder)
    (loaded.processor or tokenizer).save_pretrained(folder)


def generation_config(
    own: GenerationConfig, tokenizer: Any, stop: tuple[str, ...] | None
) -> GenerationConfig:
    """The model's settings with the stop tokens, in a form that transformers can save:
    the template's stop tokens, the tokenizer's EOS, and the model's own.

    stop: None leaves the model's own alone.
    """
    settings = own.to_diff_dict() | {"pad_token_id": tokenizer.pad_token_id}
    settings.pop("_from_model_config", None)  # else transformers may replace it when it loads
    known = tokenizer.get_vocab()
    if stop is not None:
        before = settings.get("eos_token_id")
        ends = [known[token] for token in (*stop, tokenizer.eos_token) if token in known]
        ends += before if isinstance(before, list) else [before]
        settings["eos_token_id"] = [id for id in dict.fromkeys(ends) if id is not None] or None
    if settings.keys() & {"temperature", "top_p", "top_k", "min_p", "typical_p"}:
        settings["do_sample"] = True  # published models often forget it
    return GenerationConfig(**settings)
