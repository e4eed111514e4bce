"""The `configs` of a dataset card: front matter of a README.md on the Hugging Face hub.

https://huggingface.co/docs/hub/datasets-manual-configuration
"""

import fnmatch
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import yaml

from tunewright import RecipeError
from tunewright.errors import did_you_mean

FILE = "README.md"
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Config:
    name: str
    splits: dict[str, list[str]]  # split → file patterns; {}: splits are found from file names
    folder: str = ""  # prefix of these names
    default: bool = False


@dataclass(frozen=True)
class Card:
    configs: list[Config] = field(default_factory=list)

    def config(self, name: str | None, place: str) -> Config:
        """The named configuration, or the default one. Raises RecipeError."""
        names = [each.name for each in self.configs]
        if name is not None:
            if name not in names:
                raise RecipeError(
                    f"{FILE} has no subset {name!r}", place=place, hint=did_you_mean(name, names)
                )
            return self.configs[names.index(name)]
        if len(names) == 1:
            return self.configs[0]
        marked = [each for each in self.configs if each.default or each.name == "default"]
        if len(marked) == 1:
            return marked[0]
        raise RecipeError(
            f"{FILE} tells of the subsets {', '.join(names)}",
            place=place,
            hint="name one with `subset:`",
        )


def read(names: Collection[str], load: Callable[[str], bytes]) -> tuple[Card | None, str]:
    """Read the card of a folder (None if it has no `configs`), and the problem if it cannot be
    parsed."""
    if FILE not in names:
        return None, ""
    front = _FRONT.match(load(FILE).decode("utf-8", errors="replace"))
    if not front:
        return None, ""
    try:
        found = yaml.safe_load(front[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None, f"the front matter of {FILE} is not valid YAML, and is not used"
    configs = found.get("configs") if isinstance(found, dict) else None
    if not configs:
        return None, ""
    try:
        return Card([_config(config) for config in configs]), ""
    except (TypeError, AttributeError, KeyError, ValueError):
        return None, f"the `configs` of {FILE} are not as the hub reads them, and are not used"


def _config(written: Any) -> Config:
    name, files, folder = (
        written.get("config_name", "default"),
        written.get("data_files"),
        written.get("data_dir") or "",
    )
    if not isinstance(name, str) or not isinstance(folder, str):
        raise TypeError
    folder = _inside(folder).rstrip("/") if folder else ""
    splits: dict[str, list[str]] = {}
    if isinstance(files, str) or (files and all(isinstance(each, str) for each in files)):
        files = [{"split": "train", "path": files}]
    elif isinstance(files, dict):
        files = [{"split": split, "path": path} for split, path in files.items()]
    for each in files or ():
        paths = [each["path"]] if isinstance(each["path"], str) else each["path"]
        found = ["/".join(filter(None, [folder, _inside(path)])) for path in paths]
        splits.setdefault(str(each["split"]), []).extend(found)
    return Config(name, splits, folder, written.get("default") is True)


def _inside(path: str) -> str:
    """Path of a card, relative to its folder. Raises ValueError if it points outside."""
    path = path.removeprefix("./")
    if path.startswith("/") or "://" in path or ".." in path.split("/"):
        raise ValueError
    return path


def matches(name: str, pattern: str) -> bool:
    """Whether a file matches a card's pattern: * matches characters except /, and ** between
    slashes any folders. A folder name matches all files in it."""
    return _matches(name.split("/"), pattern.rstrip("/").split("/"))


def _matches(name: list[str], pattern: list[str]) -> bool:
    ends = {0}  # numbers of path parts that the pattern so far can match
    for part in pattern:
        if part == "**":
            ends = set(range(min(ends), len(name) + 1))
        else:
            ends = {
                end + 1 for end in ends if end < len(name) and fnmatch.fnmatchcase(name[end], part)
            }
        if not ends:
            return False
    return True
