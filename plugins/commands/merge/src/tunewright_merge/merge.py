"""Merge models into a new folder."""

import json
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tunewright import TunewrightError
from tunewright.terminal import printable, progress_bar, told
from tunewright.words import counted
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_merge import tensors
from tunewright_merge.arguments import METHODS, MergeRequest
from tunewright_merge.card import shown, write_card
from tunewright_merge.greedy import held_out_loss, ingredients
from tunewright_merge.methods import Settings
from tunewright_merge.soup import HeldOut
from tunewright_merge.sources import (
    Source,
    check_configs,
    check_tokenizers,
    open_source,
    write_plain,
)

#: of a model's folder, what belongs to config, tokenizer, template and processor
_COPIED = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")
_LEFT_OUT = ("export.json", "merge.json", "run.json", "model.safetensors.index.json")
_PARTS = ".parts"  # below the new folder, so that nothing stays behind


def merge(
    asked: MergeRequest, changes: list[str], *, trust_remote_code: bool, dry_run: bool
) -> None:
    """Merge models into the new folder asked.output; the folder appears when it is complete.

    dry_run: check what can be checked without writing, and print it. Raises RecipeError if the
    models do not fit together, RunError if one cannot be read or the result not written.
    """
    how = {"trust_remote_code": trust_remote_code, "on_event": told}
    given = [(asked.base, 1.0)] if asked.base is not None else []
    sources = [
        open_source(name, weight, changes, **how) for name, weight in (*given, *asked.models)
    ]
    check_configs(sources)
    ready = [each for each in sources if each.folder]
    if len(ready) > 1:
        check_tokenizers(ready)
        _opened(ready)
    if dry_run:
        _print_plan(asked, sources)
        return

    def write(folder: Path) -> None:
        for number, source in enumerate(sources):
            if source.folder is None:
                write_plain(source, folder / _PARTS / str(number), _say)
        check_configs(sources)
        check_tokenizers(sources)
        if asked.greedy:
            _write_greedy(asked, sources, folder, asked.greedy)
        else:
            _write(asked, sources, folder)
        shutil.rmtree(folder / _PARTS, ignore_errors=True)

    try:
        write_folder(asked.output, write)
    except TunewrightError as error:
        _name(error, asked.output)
        raise


def _name(error: TunewrightError, output: Path) -> None:
    """Have an error name the folder that the user named, not the hidden one beside it."""
    if error.problem.startswith("cannot be written"):
        error.place = str(output)
        error.hint = "nothing of it is left; make room, or name another disk: --output"
    hidden = str(output.with_name(f".{output.name}.new"))
    error.problem = error.problem.replace(hidden, str(output))
    error.place = error.place.replace(hidden, str(output))


def _write_greedy(asked: MergeRequest, sources: list[Source], folder: Path, data: HeldOut) -> None:
    """Write the mean of those models that do not raise the loss on the data."""
    soup, lines = folder / _PARTS / "soup", folder / _PARTS / "evaluation"
    trust = sources[0].run.trust_remote_code

    def loss(some: list[Source]) -> float:
        soup.mkdir()
        _write_model(replace(asked, dtype="auto"), some, soup)
        found = held_out_loss(soup, data, lines, trust_remote_code=trust)
        shutil.rmtree(soup)
        return found

    kept, least = ingredients(sources, loss, _say)
    _write_model(asked, kept, folder)
    options = {"soup": "greedy", "data": data.name, "loss": least}
    write_card(folder, _facts(asked, kept, options))


def _write(asked: MergeRequest, sources: list[Source], folder: Path) -> None:
    _write_model(asked, sources, folder)
    write_card(folder, _facts(asked, sources, _options(asked)))


def _write_model(asked: MergeRequest, sources: list[Source], folder: Path) -> None:
    """Write the merged weights, and what a model needs besides them."""
    weights = [each.weight for each in sources[METHODS[asked.method] :]]
    settings = Settings(asked.method, weights, asked.density, asked.scale, asked.seed)
    dtype = None if asked.dtype == "auto" else getattr(torch, asked.dtype)
    with progress_bar() as progress:
        tensors.write(
            _opened(sources),
            METHODS[asked.method],
            settings,
            dtype,
            asked.shard_size,
            folder,
            progress,
        )
    _copy_rest(sources[0], folder, asked.dtype)


def _opened(sources: list[Source]) -> tensors.Tensors:
    folders = [each.folder for each in sources if each.folder]
    return tensors.Tensors(folders, [each.name for each in sources])


def _copy_rest(source: Source, folder: Path, dtype: str) -> None:
    """Copy what a model needs besides its weights."""
    assert source.folder is not None, "all are written"
    patterns = (*_COPIED, "*.py") if source.run.trust_remote_code else _COPIED
    for path in sorted({path for each in patterns for path in source.folder.glob(each)}):
        if path.name not in _LEFT_OUT:
            shutil.copyfile(path, folder / path.name)
    config = source.config()
    if dtype != "auto":
        config["dtype"] = dtype
        config.pop("torch_dtype", None)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _options(asked: MergeRequest) -> dict[str, Any]:
    """Options of the method, by name."""
    options: dict[str, Any] = {}
    if METHODS[asked.method]:
        options["lambda"] = asked.scale
    if asked.method not in ("linear", "slerp", "task_arithmetic"):
        options["density"] = asked.density
    if asked.method.startswith("dare_"):
        options["seed"] = asked.seed
    return options


def _facts(asked: MergeRequest, sources: list[Source], options: dict[str, Any]) -> dict[str, Any]:
    has_base = METHODS[asked.method]
    models = []
    for number, each in enumerate(sources):
        name, is_hub_id = shown(each.name)
        role = {"weight": each.weight, "is_base": has_base and number == 0}
        models.append({"name": name, "is_hub_id": is_hub_id, **role, "sha256": each.digests()})
    return {
        "name": asked.output.name,
        "tunewright": metadata.version("tunewright"),
        "method": asked.method,
        "options": options,
        "dtype": asked.dtype,
        "models": models,
    }


def _print_plan(asked: MergeRequest, sources: list[Source]) -> None:
    print(f"{asked.method} of {counted(len(asked.models), 'model')}:")
    if asked.greedy:
        print(f"  those of them that do not raise the loss on {asked.greedy.name}:")
    for number, each in enumerate(sources):
        role = "base" if METHODS[asked.method] and number == 0 else f"weight {each.weight:g}"
        written = "" if each.folder else ", is first written as one model"
        print(printable(f"  {each.name}: {role}{written}"))
    ready = [each for each in sources if each.folder]
    if ready:
        found = _opened(ready[:1])
        dtype = None if asked.dtype == "auto" else getattr(torch, asked.dtype)
        size = sum(found.size(name, dtype) for name in found.headers)
        files = counted(len(found.shards(dtype, asked.shard_size)), "file")
        print(f"{counted(len(found.headers), 'tensor')}, {size / 1e9:.3g} GB in {files}")
    print(printable(f"nothing was written; {asked.output} would hold the merged model"))


def _say(message: str) -> None:
    print(printable(message), file=sys.stderr)
