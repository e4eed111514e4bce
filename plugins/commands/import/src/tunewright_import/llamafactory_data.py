"""LLaMA-Factory's data sets, by the names of a dataset_info.json."""

import json
from pathlib import Path
from typing import Any

from tunewright_import.translation import Configuration, Refused, Translation, names_in

_MIXING = {
    "concat": {},
    "interleave_under": {"mixing": "interleave", "stop": "first"},
    "interleave_over": {"mixing": "interleave", "stop": "all"},
}


def sources(config: Configuration, result: Translation, recipe_folder: Path) -> None:
    """Write the sections data, eval_data and dataset of the recipe. Raises Refused."""
    folder = config.take("dataset_dir", "data")
    limit = config.take("max_samples")
    media, weights = config.take("media_dir"), config.take("interleave_probs")

    def entries(names: Any) -> list[dict[str, Any]]:
        found = [_entry(config, str(folder), name, recipe_folder) for name in names_in(names)]
        for entry in found:
            if limit:
                entry["limit"] = int(limit)
            if media:
                entry["media_root"] = config.relative(str(media), recipe_folder)
        return found

    if not (names := config.take("dataset")):
        raise Refused("names no `dataset`: it does not train")
    result.set("data", entries(names))
    for entry, weight in zip(result.recipe["data"], names_in(weights or []), strict=False):
        entry["weight"] = float(weight)
    if evaluated := config.take("eval_dataset"):
        each = zip(names_in(evaluated), entries(evaluated), strict=True)
        result.set("eval_data", {name: [entry] for name, entry in each})
    _options(config, result)


def _options(config: Configuration, result: Translation) -> None:
    options: dict[str, Any] = {}
    mixing = str(config.take("mix_strategy", "concat"))
    if mixing not in _MIXING:
        raise Refused(f"mixes by {mixing}; there are interleave_under and interleave_over")
    options |= _MIXING[mixing]
    if (share := float(config.take("val_size", 0))) > 0:
        options["validation"] = share if share < 1 else int(share)
    if config.take("streaming"):
        options["streaming"] = True
    for option, value in options.items():
        result.recipe.setdefault("dataset", "chat")
        result.set(f"dataset.{option}", value)
    if "preprocessing_num_workers" in config or "buffer_size" in config:
        result.recipe.setdefault("dataset", "chat")


def _entry(config: Configuration, folder: str, name: str, recipe_folder: Path) -> dict[str, Any]:
    if folder == "ONLINE":
        return {"path": name, "hub": "hf"}
    if folder.startswith("REMOTE:"):
        raise Refused(f"reads dataset_info.json from a hub: download {folder[7:]} and name it")
    path = config.find(folder)
    info = path / "dataset_info.json" if path else None
    if info and info.is_file() and name not in json.loads(info.read_text("utf-8")):
        raise Refused(f"names the data set {name!r}, which {folder}/dataset_info.json has not")
    return {"dataset_info": config.relative(folder, recipe_folder), "name": name}
