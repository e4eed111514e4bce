"""What is found out about a loaded model before it is trained: that its weights are numbers, that
tokenizer and embeddings fit each other, and that rows fit its positions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

from tunewright import RunError
from tunewright.types import LoadedModel
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.safety import StoredWeights

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_SAMPLING = ("min_p", "repetition_penalty", "temperature", "top_k", "top_p", "typical_p")
_NUMBERS = ("max_length", "max_new_tokens", *_SAMPLING)
_BUFFERS = 2**28  # numbers that a model may compute, and no file holds, such as masks

# attributes of a tokenizer that name placeholders of media: text models may lack their rows
_MEDIA = ("image", "boi", "eoi", "audio", "boa", "eoa", "video")


def check_finite(model: Any, place: str) -> None:
    """Refuse weights that hold NaN or infinity: training would go on with them without a word.

    Reads each floating-point parameter once, without a copy; buffers may hold infinity, as masks
    do. Raises RunError with the tensor's name.
    """
    for name, tensor in model.named_parameters():
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.element_size() < 2:  # 8-bit floats are quantized, and have no such operation
            continue
        least, most = torch.aminmax(tensor.detach())  # both NaN where one number is
        if not (torch.isfinite(least) and torch.isfinite(most)):
            hint = "the checkpoint is damaged, or was saved by a training that had failed"
            raise RunError(f"{name} holds numbers that are not finite", place=place, hint=hint)


def check_size(config: Any, head: Any, stored: StoredWeights, path: Path) -> None:
    """Refuse a config.json of a much larger model than the weights: memory would be taken for all
    of it, and filled, before the library compares shapes. Raises RunError.

    head: the auto class. Builds the model without storage.
    """
    layers = config.get_text_config().num_hidden_layers
    if isinstance(layers, int) and layers > stored.tensors:
        problem = f"num_hidden_layers is {layers}, the weights are {stored.tensors} tensors"
        raise RunError(problem, place=str(path))
    with torch.device("meta"), one_line("describes no model", str(path)):
        skeleton = head.from_config(config)
    wanted = sum(each.numel() for each in (*skeleton.parameters(), *skeleton.buffers()))
    if wanted > stored.elements * (16 if stored.packed else 4) + _BUFFERS:
        problem = f"describes a model of {wanted:,} numbers, the weights have {stored.elements:,}"
        raise RunError(problem, place=str(path), hint="both have to be of the same checkpoint")


def check_generation_config(tokenizer: Any, folder: Path) -> None:
    """Refuse a generation_config.json with which the result of a training could not be saved.
    Raises RunError."""
    from tunewright_hf.models.export import generation_config

    path = folder / "generation_config.json"
    if not path.is_file():
        return
    found = read_json(path)
    for key, value in found.items():
        if key in _NUMBERS and not isinstance(value, int | float | None):
            raise RunError(f"{key} is {value!r:.60}, not a number", place=str(path))
        each = value if isinstance(value, list) else [value]
        if key in _IDS and not all(isinstance(one, int | None) for one in each):
            raise RunError(f"{key} is {value!r:.60}, not a token's id", place=str(path))
    with one_line("holds a setting that cannot be used", str(path)):
        own = transformers.GenerationConfig.from_dict(found)
        generation_config(own, tokenizer, ()).validate(strict=True)


def check_added_tokens(tokenizer: Any, added: dict[str, int], path: Path) -> None:
    """Refuse a tokenizer.json whose added tokens get other ids than it says: the library numbers
    them one after the other, whatever is missing between them. Raises RunError."""
    known = tokenizer.get_vocab()
    for content, number in added.items():
        if known.get(content, number) != number:
            problem = (
                f"added_tokens: {content!r:.60} is {number} there, {known[content]} when loaded"
            )
            hint = "ids before it are missing, or stand twice"
            raise RunError(problem, place=str(path), hint=hint)


def embedding_rows(model: Any) -> int | None:
    """The number of ids that the model has embeddings for; None where it does not say."""
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    return rows if isinstance(rows, int) else None


def check_vocabulary(loaded: LoadedModel, place: str, unused: Iterable[str] = ()) -> None:
    """Refuse a tokenizer with ids for which the model's embeddings have no row: the first row of
    data that holds one would end training with an error of torch's. Raises RunError.

    unused: tokens that no text gives. Placeholders of pictures and sound are left out too, which
    the tokenizers of a line share with models that know only text.
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
    """Refuse rows that may be longer than the model's positions. Raises RunError with the remedy.

    max_length: of the recipe, in tokens. Learned positions have no row beyond their number; rotary
    ones give numbers that the model has never seen, unless they are scaled. Positions of other
    kinds (ALiBi, none) have no end.
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
    """Whether rotary positions are stretched; some models have a set of parameters for each type of
    layer."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(parameters, dict):
        return False
    sets = [parameters, *(each for each in parameters.values() if isinstance(each, dict))]
    return any(
        (each.get("rope_type") or each.get("type") or "default") != "default" for each in sets
    )
