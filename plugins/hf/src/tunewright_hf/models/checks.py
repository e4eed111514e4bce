"""Checks of a loaded model before training: finite weights, tokenizer and embeddings fit each
other, examples fit the positions."""

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from tunewright import RunError
from tunewright.types import LoadedModel
from tunewright_hf.models.errors import PUBLISHED, one_line
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.modules import is_packed
from tunewright_hf.models.safety import StoredWeights

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_SAMPLING = ("min_p", "repetition_penalty", "temperature", "top_k", "top_p", "typical_p")
_NUMBERS = ("max_length", "max_new_tokens", *_SAMPLING)
_SAME = "both have to be of the same checkpoint"
_BUFFERS = 2**28  # elements that a model may compute instead of loading, such as masks

# tokenizer attributes that name media placeholders: text models may have no embeddings for them
_MEDIA = ("image", "boi", "eoi", "audio", "boa", "eoa", "video")


def check_layout(
    config: Mapping[str, Any], refused: Iterable[Mapping[str, str]], place: str
) -> None:
    """Refuse a checkpoint of another layout than transformers', and one whose class needs a package
    that is missing. refused: see HfFamily. Raises RunError."""
    for layout in refused:
        kind, package = layout["model_type"], layout.get("without")
        if config.get("model_type") != kind or layout.get("field", "model_type") not in config:
            continue
        if package is None:
            problem = f"{kind} in the layout of its makers, which is not loaded"
            raise RunError(problem, place=place, hint=layout["hint"])
        if importlib.util.find_spec(package) is None:
            raise RunError(f"{kind} needs the package {package}", place=place, hint=layout["hint"])


def check_finite(model: Any, place: str, check_stop: Callable[[], None] = lambda: None) -> None:
    """Refuse weights that hold NaN or infinity: training would go on with them without a word.

    Reads each floating-point parameter once, without a copy; buffers may hold infinity, as masks
    do. check_stop: called before each, raises Stopped. Raises RunError with the tensor's name.
    """
    for name, tensor in model.named_parameters():
        check_stop()
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
            continue
        if is_packed(tensor):  # libraries' own tensors, and 8-bit floats, have no such operation
            continue
        least, most = torch.aminmax(tensor.detach())  # both are NaN if any element is
        if not (torch.isfinite(least) and torch.isfinite(most)):
            hint = "the checkpoint is damaged, or was saved by a training that had failed"
            raise RunError(f"{name} holds numbers that are not finite", place=place, hint=hint)


def check_size(config: Any, head: Any, stored: StoredWeights, path: Path) -> None:
    """Refuse a config.json of a much larger model than the weights: memory for all of it would be
    allocated and filled before the library compares shapes. Raises RunError.

    head: the auto class. Builds the model on the meta device.
    """
    layers = config.get_text_config().num_hidden_layers
    if isinstance(layers, int) and layers > stored.tensors:
        problem = f"num_hidden_layers is {layers}, the weights are {stored.tensors} tensors"
        raise RunError(problem, place=str(path), hint=_SAME)
    with torch.device("meta"), one_line("describes no model", str(path), PUBLISHED):
        skeleton = head.from_config(config)
    wanted = sum(each.numel() for each in (*skeleton.parameters(), *skeleton.buffers()))
    if wanted > stored.elements * (16 if stored.packed else 4) + _BUFFERS:
        problem = f"describes a model of {wanted:,} numbers, the weights have {stored.elements:,}"
        raise RunError(problem, place=str(path), hint=_SAME)


def check_generation_config(tokenizer: Any, folder: Path) -> None:
    """Refuse a generation_config.json with which the trained model could not be saved. Raises
    RunError."""
    from tunewright_hf.models.export import generation_config

    path = folder / "generation_config.json"
    if not path.is_file():
        return
    found = read_json(path)
    for key, value in found.items():
        if key in _NUMBERS and not isinstance(value, int | float | None):
            raise RunError(f"{key} is {value!r:.60}, not a number", place=str(path), hint=PUBLISHED)
        each = value if isinstance(value, list) else [value]
        if key in _IDS and not all(isinstance(one, int | None) for one in each):
            raise RunError(
                f"{key} is {value!r:.60}, not a token's id", place=str(path), hint=PUBLISHED
            )
    with one_line("holds a setting that cannot be used", str(path), PUBLISHED):
        own = transformers.GenerationConfig.from_dict(found)
        generation_config(own, tokenizer, None).validate(strict=True)


def check_added_tokens(tokenizer: Any, added: dict[str, int], path: Path) -> None:
    """Refuse a tokenizer.json whose added tokens would get other ids than it says: the library
    numbers them consecutively, whatever is missing between them. Raises RunError."""
    known = tokenizer.get_vocab()
    for content, number in added.items():
        if known.get(content, number) != number:
            problem = (
                f"added_tokens: {content!r:.60} is {number} there, {known[content]} when loaded"
            )
            hint = "ids before it are missing, or stand twice"
            raise RunError(problem, place=str(path), hint=hint)


def embedding_rows(model: Any) -> int | None:
    """Number of ids that the model has embeddings for; None if unknown."""
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    return rows if isinstance(rows, int) else None


def check_vocabulary(loaded: LoadedModel, place: str, unused: Iterable[str] = ()) -> None:
    """Refuse a tokenizer with ids that have no embedding: the first example with one would end
    training with an error of torch. Raises RunError.

    unused: tokens that no text produces. Placeholders of images and audio are ignored too: text
    models often share a tokenizer with multimodal ones.
    """
    rows = embedding_rows(loaded.model)
    if rows is None:
        return
    tokenizer = loaded.tokenizer
    media = {
        str(token)
        for key, token in tokenizer.special_tokens_map.items()
        if key.startswith(_MEDIA) and isinstance(token, str)
    }
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    beyond = {token: number for token, number in beyond.items() if token not in {*media, *unused}}
    written = max(tokenizer("a").input_ids, default=0)  # the post-processor writes ids of its own
    if not beyond and written < rows:
        return
    some = ", ".join(sorted(beyond, key=beyond.__getitem__)[:3])
    named = f" ({some}{', …' if len(beyond) > 3 else ''})" if beyond else ""
    problem = (
        f"the tokenizer has ids up to {max([*beyond.values(), written])}{named}, the model's "
        f"embeddings have {rows} rows"
    )
    hint = (
        "take the checkpoint's own tokenizer, or call resize_token_embeddings where tokens were "
        "added, and save model and tokenizer"
    )
    raise RunError(problem, place=place, hint=hint)


def check_fit(loaded: LoadedModel, max_length: int) -> None:
    """Refuse examples that may be longer than the model's positions. Raises RunError with the
    remedy.

    max_length: of the recipe, in tokens. Learned positions have no embedding beyond their number;
    rotary ones give values that the model has never seen, unless they are scaled. Other kinds of
    positions (ALiBi, none) have no limit.
    """
    config = loaded.model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1 or max_length <= limit:
        return
    if getattr(config, "alibi", False) or _is_scaled(config):
        return
    hint = (
        f"set training.max_length to {limit} or less; where the model's positions are scaled, its "
        "config.json says so (rope_parameters, max_position_embeddings)"
    )
    problem = f"{max_length} is more than the {limit} positions of the model"
    raise RunError(problem, place="training.max_length", hint=hint)


def _is_scaled(config: Any) -> bool:
    """Whether rotary positions are scaled. Some models have separate parameters per layer type."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(parameters, dict):
        return False
    sets = [parameters, *(each for each in parameters.values() if isinstance(each, dict))]
    return any(
        (each.get("rope_type") or each.get("type") or "default") != "default" for each in sets
    )
