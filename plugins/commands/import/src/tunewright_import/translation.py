"""A configuration on its way to a recipe. Imports no torch."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

Kind = Literal["command", "unneeded", "off", "missing", "said"]

#: values that switch something off, or leave it to the program
OFF: tuple[Any, ...] = (None, False, "", "none", "None", "no", "auto", [], {}, 0)


class Refused(Exception):
    """The configuration has no counterpart as a whole. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Note:
    """A key that is no field of the recipe, or whose field means something else."""

    key: str
    kind: Kind  # command: an option of the command line; said: is translated, with a difference
    text: str


@dataclass(slots=True)
class Translation:
    """The recipe, or the command, that a configuration stands for."""

    recipe: dict[str, Any] = field(default_factory=dict)
    command: str = ""  # in place of a recipe
    notes: list[Note] = field(default_factory=list)

    def set(self, place: str, value: Any) -> None:
        """Set a field of the recipe, such as training.max_length. A plugin that is named already
        gets an option: adapter.rank of {"name": "lora"}."""
        *parents, last = place.split(".")
        table = self.recipe
        for name in parents:
            found = table.setdefault(name, {})
            table[name] = found = {"name": found} if isinstance(found, str) else found
            table = found
        table[last] = value

    def add(self, section: str, name: str, **options: Any) -> None:
        """Add a plugin to a section with several."""
        self.recipe.setdefault(section, []).append({"name": name, **options} if options else name)

    def plugin(self, section: str, name: str, options: dict[str, Any]) -> None:
        """Name the plugin of a section, with its options."""
        self.recipe[section] = {"name": name, **options} if options else name

    def finish(self) -> None:
        """Leave out options of a family whose name is not known, and say so."""
        family = self.recipe.get("family")
        if isinstance(family, dict) and "name" not in family:
            for option, value in self.recipe.pop("family").items():
                text = f"`family: {{name: NAME, {option}: {value}}}`, once its name is known"
                self.note(f"family.{option}", "missing", text)

    def note(self, key: str, kind: Kind, text: str) -> None:
        self.notes.append(Note(key, kind, text))


class Configuration:
    """The keys of a configuration. It knows which have been read, so that none is lost."""

    def __init__(self, values: Mapping[str, Any], tables: tuple[str, ...], file: Path) -> None:
        self._values = {str(key): value for key, value in values.items()}
        self._read: set[str] = set()
        self._table: dict[str, dict[str, Any]] = {}
        for table in tables:  # later ones override
            self._table |= _read_table(table)
        self._file = file

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which counts as translated; the default where it is absent or
        null."""
        self._read.add(key)
        found = self._values.get(key)
        return default if found is None else found

    def ignore(self, keys: tuple[str, ...], result: Translation, reason: str) -> None:
        """Note those of these keys that no rule has read: the other program ignores them too."""
        for key in keys:
            if key not in self._read and self._values.get(key) not in OFF:
                result.note(key, "unneeded", reason)
            self._read.add(key)

    def find(self, path: str) -> Path | None:
        """A file or folder that the configuration names: relative to the current folder, in which
        the other program is started, or to a folder round the configuration."""
        bases = (Path(), *self._file.absolute().parents)
        return next((base / path for base in bases if (base / path).exists()), None)

    def relative(self, path: str, recipe_folder: Path) -> str:
        """A path of the configuration as a recipe names it: relative to the recipe's folder."""
        if Path(path).is_absolute():
            return path
        found = self.find(path) or Path(path)
        return Path(os.path.relpath(found.absolute(), recipe_folder.absolute())).as_posix()

    def translate_rest(self, result: Translation) -> None:
        """Translate the keys that no rule has read as the table says."""
        for key, value in self._values.items():
            if key in self._read:
                continue
            rule = self._table.get(key)
            if rule is None:
                near = get_close_matches(key, [*self._table, *self._read], n=1, cutoff=0.8)
                hint = f"; did you mean {near[0]}?" if near else ""
                result.note(key, "missing", f"is no known key{hint}")
            elif "to" in rule:
                if value is not None:
                    result.set(rule["to"], rule.get("values", {}).get(str(value), value))
            elif value in OFF or value in rule.get("off", ()):
                result.note(key, "off", "")
            else:
                kind = next(kind for kind in ("command", "unneeded", "missing") if kind in rule)
                result.note(key, kind, rule[kind])


def _read_table(name: str) -> dict[str, dict[str, Any]]:
    text = resources.files("tunewright_import").joinpath(name).read_text("utf-8")
    found = tomllib.loads(text)
    rules: dict[str, dict[str, Any]] = {}
    for key, place in found["fields"].items():
        rules[key] = place if isinstance(place, dict) else {"to": place}
    for kind in ("command", "unneeded", "missing"):
        for reason, keys in found.get(kind, {}).items():
            rules |= {key: {kind: reason} for key in keys}
    for key, values in found.get("off", {}).items():
        rules[key]["off"] = values
    return rules


def names_in(found: Any) -> list[str]:
    """Names of a list, or of a text with commas."""
    parts = found.split(",") if isinstance(found, str) else found
    return [str(part).strip() for part in parts]
