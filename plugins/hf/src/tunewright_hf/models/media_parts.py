"""Towers and projectors of a model with media."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from tunewright_hf.models.media_options import MediaOptions
from tunewright_hf.models.modules import within

__all__ = ["frozen_parts"]

#: names of the modules between tower and language model
PROJECTORS = (
    "multi_modal_projector",
    "merger",  # Qwen-VL, GLM-4V
    "deepstack_merger_list",  # Qwen3-VL
    "vision_resampler",  # LLaVA-NeXT-Video
    "resampler_model",  # ERNIE-VL
    "resampler",  # MiniCPM-V
    "audio_projection_layer",  # MiniCPM-o
    "connector",  # SmolVLM
    "embed_vision",  # Gemma 3n
    "embed_audio",
)


def frozen_parts(model: Any, options: MediaOptions) -> tuple[str, ...]:
    """Names of the modules, and of parameters beside them, that the options leave untrained: all
    but the language model and its head, less what is to be trained."""
    language = {id(each) for each in model.get_decoder().parameters()}
    heads = (model.get_output_embeddings(), getattr(model, "score", None))
    for part in (model.get_input_embeddings(), *heads):
        language |= {id(each) for each in part.parameters()} if part is not None else set()

    def is_frozen(name: str, parameter: nn.Parameter) -> bool:
        if id(parameter) in language:
            return False
        projector = within(name, PROJECTORS)
        return not (options.train_projector if projector else options.train_tower)

    frozen = {name for name, each in model.named_parameters() if is_frozen(name, each)}
    return tuple(_covering(model, "", frozen))


def _covering(module: nn.Module, name: str, frozen: set[str]) -> Iterator[str]:
    """The largest modules all of whose parameters are frozen."""
    before = f"{name}." if name else ""
    own = {f"{before}{each}" for each, _ in module.named_parameters()}
    if own and own <= frozen:
        yield name
        return
    yield from sorted(
        f"{before}{each}"
        for each, _ in module.named_parameters(recurse=False)
        if f"{before}{each}" in frozen
    )
    for child, part in module.named_children():
        yield from _covering(part, f"{before}{child}", frozen)
