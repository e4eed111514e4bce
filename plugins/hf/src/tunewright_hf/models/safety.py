"""Use of untrusted checkpoints: only safetensors and sanitised JSON, nothing that can run code.

Background: CVE-2025-53002 (pickle behind a fallback), CVE-2026-4372 (attention code named by
config.json), CVE-2026-5241 (trust_remote_code set by a nested config), CVE-2025-66448 (auto_map
with the flag off).
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import RunError
from tunewright.jsontext import unique_keys
from tunewright_hf.models.errors import PUBLISHED, first_line
from tunewright_hf.models.hub import read_json

__all__ = ["check_weights"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MAX_HEADER = 25 * 2**20  # bytes; the largest known headers have about 1 MB
# Keys of config.json that name code, or files to load: an attention or experts implementation may
# be a hub repository.
_UNSAFE_KEY = re.compile(
    r"auto_map|trust_remote_code|transformers_weights|_?(attn|experts)_implementation(_\w+)?"
)
_COUNT = re.compile(r"(layers?|blocks?|depths?|experts|heads?|stages|labels)$")
_MAX_COUNT = 100_000
_FLOATS = ("Infinity", "-Infinity", "NaN")  # transformers' notation of numbers that JSON lacks
_CONVERT = "tunewright models convert MODEL --to FOLDER reads them apart and writes safetensors"


def sanitised(value: Any, at: str = "") -> tuple[Any, list[str]]:
    """A config without keys that name code or files, at any depth, and the dotted names of the
    removed keys."""
    dropped: list[str] = []
    if isinstance(value, dict):
        if value.keys() == {"__float__"} and str(value["__float__"]) in _FLOATS:
            return float(value["__float__"]), dropped
        kept = {}
        for key, item in value.items():
            if _UNSAFE_KEY.fullmatch(key):
                dropped.append(at + key)
            else:
                kept[key], inner = sanitised(item, f"{at}{key}.")
                dropped += inner
        return kept, dropped
    if isinstance(value, list):
        items = [sanitised(item, at) for item in value]
        return [item for item, _ in items], [name for _, names in items for name in names]
    return value, dropped


@dataclass(frozen=True)
class StoredWeights:
    """Summary of a checkpoint's safetensors headers."""

    tensors: int
    elements: int  # over all tensors
    packed: bool  # some tensors are integers: quantized weights, several per element


def check_counts(config: dict[str, Any], path: Path) -> None:
    """Refuse a config.json with a million layers, for example: building the model would exhaust
    memory. Raises RunError."""
    pending = [config]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif isinstance(value, int) and value > _MAX_COUNT and _COUNT.search(key):
                problem = f"{key} is {value}, more than {_MAX_COUNT:,}"
                raise RunError(problem, place=str(path), hint=PUBLISHED)


def check_weights(folder: Path, name: str = "model") -> StoredWeights:
    """Refuse a checkpoint (or an adapter, with name `adapter_model`) without valid safetensors.
    Raises RunError."""
    index = folder / f"{name}.safetensors.index.json"
    single = folder / f"{name}.safetensors"
    if not single.is_file() and not index.is_file():
        pickles = sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)})
        if pickles:
            problem = (
                f"holds only {', '.join(pickles)}: pickle weights are not loaded, since "
                "they can run code"
            )
            raise RunError(problem, place=str(folder), hint=_CONVERT)
        raise RunError(
            f"holds no {single.name}",
            place=str(folder),
            hint="a checkpoint is what save_pretrained writes",
        )
    if not single.is_file():
        _check_shards(folder, index)
    headers = [check_safetensors(path) for path in sorted(folder.glob("*.safetensors"))]
    tensors = [tensor for header in headers for tensor in header.values()]
    return StoredWeights(
        len(tensors),
        sum(math.prod(tensor["shape"]) for tensor in tensors),
        any(tensor["dtype"][0] in "IU" for tensor in tensors),
    )


def _check_shards(folder: Path, index: Path) -> None:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise RunError("has no weight_map", place=str(index), hint=PUBLISHED)
    for shard in {str(shard) for shard in shards.values()}:
        # transformers reads any file in an index, with torch.load if it is not safetensors
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise RunError(
                f"names {shard!r}, which is no safetensors file beside it",
                place=str(index),
                hint=PUBLISHED,
            )
        if not (folder / shard).is_file():
            raise RunError(
                f"names {shard}, which is missing",
                place=str(index),
                hint="download the checkpoint again",
            )


def check_safetensors(path: Path) -> dict[str, Any]:
    """Read the header, within limits, and compare it with the file. Raises RunError.

    Returns dtype and shape of each tensor by name.
    """
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            problem = (
                f"is no safetensors file, or is cut short: a header of {length} bytes in "
                f"a file of {size}"
            )
            raise RunError(problem, place=str(path), hint="download or copy it again")
        header = file.read(length)
    try:
        tensors = json.loads(header, object_pairs_hook=unique_keys)
        # checks offsets, shapes and types against the file's size
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, ValueError, RecursionError) as error:
        hint = "download or copy it again"
        raise RunError(
            f"is no sound safetensors file: {first_line(error)}", place=str(path), hint=hint
        ) from error
    return {name: tensor for name, tensor in tensors.items() if name != "__metadata__"}


def check_no_adapter(folder: Path) -> None:
    """Refuse adapter files: transformers would load the base model that an adapter's config names.
    Raises RunError."""
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        hint = (
            f"`model` is its base model, {base}; a run that trained the adapter finds it by itself"
        )
        raise RunError("holds an adapter, not a model", place=str(folder), hint=hint)


def check_tokenizer(folder: Path, declared: Iterable[str | None]) -> None:
    """Refuse a tokenizer with its own code, or of a class that transformers does not know. Raises
    RunError.

    declared: further class names, such as one in config.json.
    """
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    path = folder / "tokenizer_config.json"
    found = read_json(path) if path.is_file() else {}
    hint = "--trust-remote-code runs the checkpoint's own code: only for a publisher that you trust"
    if "auto_map" in found:
        raise RunError("names code of its own (auto_map)", place=str(path), hint=hint)
    if not _is_template(found.get("chat_template")):
        expected = "a text, or a list of {name, template}"
        raise RunError(f"chat_template is not {expected}", place=str(path), hint=PUBLISHED)
    for name in filter(None, (found.get("tokenizer_class"), *declared)):
        known = tokenizer_class_from_name(name) if isinstance(name, str) else None
        if not (isinstance(known, type) and issubclass(known, PreTrainedTokenizerBase)):
            hint = f"a tokenizer.json loads with tokenizer_class PreTrainedTokenizerFast; {hint}"
            raise RunError(
                f"transformers knows no tokenizer class {name!r}", place=str(path), hint=hint
            )


def _is_template(value: Any) -> bool:
    if isinstance(value, list):
        return all(
            isinstance(each, dict)
            and isinstance(each.get("name"), str)
            and isinstance(each.get("template"), str)
            for each in value
        )
    if isinstance(value, dict):
        return all(isinstance(each, str) for each in value.values())
    return value is None or isinstance(value, str)
