"""Choose the files of a split in a folder.

Splits are found from files that `save_to_disk` of datasets wrote, from the `configs` of the dataset
card, or from the names of files and folders, as on the Hugging Face hub.
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright.words import counted
from tunewright_dataset_chat import dataset_card

TRAIN = "train"
#: split → words in file and folder names
_WORDS = {
    TRAIN: ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_SHARD = re.compile(r"(?P<split>[\w.-]+?)-\d{3,}-of-\d{3,}(?=[-.])")

#: name of a file in the folder → its first bytes
Load = Callable[[str], bytes]


@dataclass
class Chosen:
    files: list[str]  # in order
    notes: list[str] = field(default_factory=list)  # about files that were left out


def choose(
    names: list[str],
    load: Load,
    place: str,
    split: str | None,
    subset: str | None,
    can_read: Callable[[str], bool],
) -> Chosen:
    """Files of a split in a folder; default: `train`.

    names: all files, relative to the folder. Raises RecipeError if the split does not exist, or is
    ambiguous.
    """
    if (saved := _saved(names, load, place, split)) is not None:
        _no_subset(subset, place)
        return Chosen(saved)
    kept = [name for name in names if can_read(name)]
    card, problem = dataset_card.read(names, load)
    if card:
        found = _of_card(card, kept, place, split, subset)
    else:
        _no_subset(subset, place)
        found = by_names(kept, place, split)
    others = [name for name in names if name not in set(kept)]
    if others:
        found.notes.append(f"left aside {len(others)} other files ({_some(others)})")
    found.notes += [problem] * bool(problem)
    return found


def by_names(names: list[str], place: str, split: str | None) -> Chosen:
    """Files of a split by file and folder names. Files without a split in their name are for
    training."""
    exact: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split_of(name), []).append(name)
        if shard := _SHARD.match(name.rpartition("/")[2]):
            exact.setdefault(shard["split"], []).append(name)
    asked = split or (TRAIN if TRAIN in groups or len(groups) != 1 else next(iter(groups)))
    if asked in exact:
        return _left_out(exact[asked], names, asked)
    asked = _SPLIT_OF.get(asked, asked)
    if asked not in groups:
        if not groups:
            return Chosen([])
        known = sorted({*groups, *exact})
        raise RecipeError(
            f"has no split {asked!r}, only {', '.join(known)}",
            place=place,
            hint="name one with `split:`, or name files in `path:`",
        )
    several = [shards for shards in exact if _has_word(shards) and shards not in _SPLIT_OF]
    several = [shards for shards in several if set(exact[shards]) <= set(groups[asked])]
    if len(several) > 1:
        raise RecipeError(
            f"has several splits for {asked}: {', '.join(sorted(several))}",
            place=place,
            hint="name one with `split:`",
        )
    return _left_out(groups[asked], names, asked)


def split_of(name: str) -> str:
    """train, validation or test: the first word for a split in the file's name, or in that of the
    nearest folder. Default: train."""
    for part in reversed(name.split("/")):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_OF:
                return _SPLIT_OF[word]
    return TRAIN


def _has_word(name: str) -> bool:
    return any(word in _SPLIT_OF for word in re.split(r"[^a-z]+", name.lower()))


def _left_out(kept: list[str], names: Collection[str], split: str) -> Chosen:
    others = [name for name in names if name not in set(kept)]
    files = counted(len(others), "file")
    note = f"split {split}: left out {files} of other splits ({_some(others)})"
    return Chosen(kept, [note] * bool(others))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _no_subset(subset: str | None, place: str) -> None:
    if subset is not None:
        raise RecipeError(
            f"has no subset {subset!r}: a hub or the `configs` of a dataset card give subsets",
            place=place,
            hint="leave `subset` out",
        )


# ---- dataset cards -------------------------------------------------------------------------------


def _of_card(
    card: dataset_card.Card, names: list[str], place: str, split: str | None, subset: str | None
) -> Chosen:
    config = card.config(subset, place)
    if not config.splits:
        below = f"{config.folder}/" if config.folder else ""
        inside = [name for name in names if name.startswith(below)]
        found = by_names([name.removeprefix(below) for name in inside], place, split)
        kept = [below + name for name in found.files]
    else:
        splits = list(config.splits)
        asked = split or (TRAIN if TRAIN in splits or len(splits) != 1 else splits[0])
        if asked not in splits:
            raise RecipeError(
                f"README.md has no split {asked!r} for {config.name!r}, only {', '.join(splits)}",
                place=place,
                hint=did_you_mean(asked, splits),
            )
        patterns = config.splits[asked]
        kept = [
            name for name in names if any(dataset_card.matches(name, each) for each in patterns)
        ]
        if not kept:
            raise RecipeError(
                f"README.md names no file that is there for the split {asked!r} of {config.name!r}",
                place=place,
            )
    others = [name for name in names if name not in set(kept)]
    files = counted(len(others), "file")
    note = f"{config.name} of the dataset card: left out {files} ({_some(others)})"
    return Chosen(kept, [note] * bool(others))


# ---- what save_to_disk wrote ---------------------------------------------------------------------


def _saved(names: Collection[str], load: Load, place: str, split: str | None) -> list[str] | None:
    """Arrow files of a folder written by `save_to_disk`. They must be in the folder: no path leads
    out."""
    prefix = ""
    if "dataset_dict.json" in names:
        splits = _json(load, "dataset_dict.json", "splits", place)
        chosen = split or (TRAIN if TRAIN in splits or len(splits) != 1 else splits[0])
        if chosen not in splits:
            found = ", ".join(map(str, splits))
            raise RecipeError(
                f"has no split {chosen!r}, only {found}",
                place=place,
                hint=did_you_mean(chosen, splits),
            )
        prefix = f"{chosen}/"
    elif "state.json" not in names or "dataset_info.json" not in names:
        return None
    elif split not in (None, TRAIN):
        raise RecipeError(
            f"has no split {split!r}: `save_to_disk` wrote a data set without splits",
            place=place,
            hint="leave `split` out",
        )
    state = prefix + "state.json"
    files = [
        f"{prefix}{file.get('filename')}"
        for file in _json(load, state, "_data_files", place, of=dict)
    ]
    if missing := [name for name in files if name not in names]:
        raise RecipeError(f"{state} names {missing[0]!r}, which is not in the folder", place=place)
    return files


def _json(load: Load, name: str, key: str, place: str, of: type = str) -> Any:
    try:
        found = json.loads(load(name))[key]
        if isinstance(found, list) and all(isinstance(item, of) for item in found):
            return found
    except (ValueError, LookupError, TypeError, RecursionError, OSError):
        pass
    raise RecipeError(
        f"{name} has no list {key!r}", place=place, hint="`save_to_disk` of datasets writes it"
    )
