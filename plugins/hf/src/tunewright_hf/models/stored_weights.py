"""Quantized weights of a checkpoint: what config.json says of them is checked before they load, and
layers that training would spoil are mended."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from tunewright import RecipeError
from tunewright.events import Notice
from tunewright.registry import PluginCaller
from tunewright.types import LoadedModel, LoadRequest, RunContext
from tunewright_hf.models import hub, prequantized
from tunewright_hf.models.quantizers import AfterLoading, LibraryQuantizer, StoredQuantization

__all__ = ["keep_layout", "layer_changes", "prepare", "recognise"]


def recognise(run: RunContext, request: LoadRequest, revision: str | None) -> PluginCaller | None:
    """The plugin that reads the quantized weights of request.model where the recipe names none,
    after its prepare_load; None for plain weights. Raises RecipeError if it is not installed."""
    if request.quantization is not None or request.loader or request.model == "tiny":
        return None
    if request.weights == "none":
        return None
    found = prequantized.stored(hub.read_config(request.model, revision) or {})
    if found is None:
        return None
    try:
        reader = run.named("quantizer", prequantized.plugin_name(found))
    except RecipeError as error:
        problem = (
            f"its weights are quantized by {prequantized.method(found)!r:.60}, which is not read"
        )
        raise RecipeError(problem, place=request.model, hint=error.problem) from error
    reader.call("prepare_load", run=run, request=request)
    if not isinstance(request.quantization, StoredQuantization):
        request.quantization = None  # made for a plain model
        if isinstance(reader.plugin, LibraryQuantizer):
            _check_readable(reader.plugin.unreadable(found), request.model)
    said = "quantized, and dequantized while it is loaded" if dequantizes(request) else "quantized"
    run.emit(Notice(message=f"{request.model} is {said} ({reader.entry.name})", level="info"))
    return reader


def dequantizes(request: LoadRequest) -> bool:
    asked = request.quantization
    return isinstance(asked, StoredQuantization) and bool(asked.loading.get("dequantize"))


def layer_changes(request: LoadRequest) -> Callable[[LoadedModel], None]:
    """The quantizer's changes of layers that its library makes; to be asked before loading, which
    uses up request.quantization."""
    asked = request.quantization
    return asked.adapt_layers if isinstance(asked, StoredQuantization) else lambda _: None


def prepare(config: Any, request: LoadRequest, place: str) -> None:
    """Check that nothing contradicts config.quantization_config, lay over it how the weights are
    loaded, and leave in request.quantization what from_pretrained has to quantize by.

    place: the path of config.json. Raises RecipeError.
    """
    asked, written = request.quantization, config.to_dict()
    found = prequantized.stored(written)
    if not isinstance(written.get("quantization_config") or {}, dict):
        raise RecipeError("quantization_config is no object", place=place)
    if isinstance(asked, AfterLoading | StoredQuantization):
        request.quantization = None
    if found is None:
        if isinstance(asked, StoredQuantization):
            raise RecipeError(
                f"{asked.quantizer} reads quantized checkpoints, and the weights of "
                f"{request.model} are plain",
                place="quantizer",
                hint="name the quantized checkpoint, or a quantizer that quantizes while loading",
            )
        return
    if asked is None:
        return
    if isinstance(asked, AfterLoading):
        _agree(asked.method, {}, found)
        raise RecipeError(
            f"the model's weights are quantized by {asked.method} already",
            place="quantizer",
            hint="name the unquantized model",
        )
    elif isinstance(asked, StoredQuantization):
        _agree(asked.method, asked.expected, found)
        _check_readable(asked.unreadable(found), request.model)
        text = config.get_text_config()
        holder = config if getattr(config, "quantization_config", None) else text
        holder.quantization_config = found | asked.loading
    else:  # of the checkpoint's own method, there is nothing left to do
        said = asked.to_dict()
        expected = {key: said[key] for key in prequantized.STORED if key in said}
        _agree(prequantized.method(said), expected, found)
        request.quantization = None


def _check_readable(reasons: Iterable[str], model: str) -> None:
    for reason in reasons:
        raise RecipeError(f"its weights {reason}", place=model, hint="name the unquantized model")


def _agree(method: str, expected: dict[str, Any], found: dict[str, Any]) -> None:
    stored = prequantized.method(found)
    if method != stored:
        raise RecipeError(
            f"the model's weights are quantized by {stored} already, not by {method}",
            place="quantizer",
            hint="take the quantizer out of the recipe, or name the unquantized model",
        )
    for problem in prequantized.differences(expected, found):
        raise RecipeError(problem, place="quantizer", hint="the checkpoint says it: leave it out")


def keep_layout(model: Any) -> None:
    """Keep bitsandbytes' 4-bit layers from repacking their weights for inference on a CPU with
    AVX512-BF16.

    bitsandbytes repacks at the first forward pass in evaluation mode. From then on gradients,
    merging and saving read the new layout as the old one, without an error: the loss looks as
    before.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            # on a CPU it logs at every start that a hub kernel would be faster
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
