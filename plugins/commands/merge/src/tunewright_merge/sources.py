"""Models that are merged: where their weights are, and whether they fit together."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError
from tunewright.context import Run
from tunewright.types import ExportRequest
from tunewright_hf.inference.opened_runs import CheckpointRun, OpenedRun
from tunewright_hf.inference.opening import open_target
from tunewright_hf.models.hub import locate, read_json

#: keys of config.json that may differ: they change no weight, and no computation with them
_FREE = re.compile(
    r"_name_or_path|(torch_)?dtype|transformers_version|use_cache|tunewright\w*|"
    r"(bos|eos|pad|sep)_token_id|id2label|label2id|"
    r"(attention|hidden|resid|embd|classifier)\w*drop\w*"
)
_PLAIN = "tunewright export MODEL --to safetensors writes it in one form"


@dataclass(slots=True)
class Source:
    """A model that is merged."""

    name: str  # as it was given
    weight: float
    run: Run
    folder: Path | None  # of its safetensors; None: they are to be written
    parts: list[Path] = field(default_factory=list)  # folders whose files make the model

    def config(self) -> dict[str, Any]:
        """config.json of the model, or of the base model of an adapter or checkpoint."""
        if not (self.folder or self.parts):  # a tiny twin
            return {}
        path = (self.folder or self.parts[-1]) / "config.json"
        return read_json(path) if path.is_file() else {}

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file with weights, by the last two parts of its path."""
        found = {}
        for path in (file for part in self.parts for file in _weight_files(part)):
            with path.open("rb") as file:
                name = f"{path.parent.name}/{path.name}"
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def _weight_files(folder: Path) -> list[Path]:
    """Files with weights of a model, an adapter or a checkpoint, which has other states beside."""
    own = folder / "weights.safetensors"
    return [own] if own.is_file() else sorted(folder.glob("*.safetensors"))


def open_source(name: str, weight: float, changes: list[str], **how: Any) -> Source:
    """Find a model, without loading it. how: of `open_target`. Raises TunewrightError."""
    run = open_target(name, changes, **how)
    if isinstance(run, CheckpointRun):
        return Source(name, weight, run, None, run.policy_folders())
    result = run.trained
    if result is None and not isinstance(run, OpenedRun):
        hint = "wait for its end, or name a checkpoint in it"
        raise RecipeError("has trained nothing yet", place=name, hint=hint)
    parts = [result.path] if result else []
    if result and result.saves == "model":
        return Source(name, weight, run, result.path, parts)
    model = run.recipe.model
    if model == "tiny":
        return Source(name, weight, run, None, parts)
    revision = getattr(run.plugin("family").options, "revision", None) if _family(run) else None
    own = locate(model, revision, trust_remote_code=run.trust_remote_code)
    return Source(name, weight, run, None if result else own, [*parts, own])


def _family(run: Run) -> bool:
    return "family" in run.resolved.choices


def write_plain(source: Source, folder: Path, say: Callable[[str], None]) -> None:
    """Write a source that has no folder of its own as a complete checkpoint: an adapter in the
    weights, a quantized base model dequantized. Raises TunewrightError."""
    from tunewright_hf.models.export import save_merged

    say(f"writing {source.name} as one model")
    loaded = source.run.load_policy(source.run.policy_head)
    request = ExportRequest(loaded, folder, source.run.recipe.model, say)
    save_merged(source.run, request, folder)
    source.folder = folder


def check_configs(sources: list[Source]) -> None:
    """Refuse models of different architectures; of those that have no folder yet, only the
    architecture of the base is known. Raises RecipeError."""
    configs = [(each, each.config()) for each in sources]
    known = [(each, config) for each, config in configs if config]
    for each, config in known[1:]:
        _compare(
            "model_type", known[0][1].get("model_type"), config.get("model_type"), known[0][0], each
        )
    ready = [(each, config) for each, config in known if each.folder]
    for each, config in ready:
        if config.get("quantization_config"):
            problem = "its weights are quantized, and cannot be merged"
            raise RecipeError(problem, place=each.name, hint=_PLAIN)
        first, own = ready[0]
        for key in sorted(own.keys() & config.keys()):
            if not _FREE.fullmatch(key):
                _compare(key, own[key], config[key], first, each)


def check_tokenizers(sources: list[Source]) -> None:
    """Refuse models whose vocabularies differ; all have folders. Raises RecipeError."""
    first = _vocabulary(sources[0])
    for each in sources[1:]:
        other = _vocabulary(each)
        if differing := {token for token, _ in first.items() ^ other.items()}:
            token = min(differing)
            problem = (
                f"has another tokenizer than {sources[0].name}: token {token!r:.60} has id "
                f"{other.get(token)}, not {first.get(token)}"
            )
            raise RecipeError(problem, place=each.name, hint="merge models of one tokenizer")


def _compare(name: str, first: Any, other: Any, one: Source, each: Source) -> None:
    if first != other:
        problem = f"differs from {one.name}: {name} is {other!r:.80}, not {first!r:.80}"
        hint = "merge models of one architecture, trained from one base model"
        raise RecipeError(problem, place=each.name, hint=hint)


def _vocabulary(source: Source) -> dict[str, Any]:
    """Token → id; of a tokenizer in another form than tokenizer.json, file → digest."""
    assert source.folder is not None, "write_plain has given it one"
    path = source.folder / "tokenizer.json"
    if not path.is_file():
        files = [file for file in source.folder.glob("*") if file.suffix in (".model", ".tiktoken")]
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    found = read_json(path)
    try:
        words = found["model"]["vocab"]
        if isinstance(words, list):  # Unigram: [token, score] in the order of ids
            words = {token: number for number, (token, _) in enumerate(words)}
        added = {each["content"]: each["id"] for each in found.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"is no tokenizer that can be compared: {json.dumps(str(error))}"
        raise RunError(problem, place=str(path), hint=_PLAIN) from error
    return {**words, **added}
