"""Arguments of `tunewright evaluate`. Imports no torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunewright import RecipeError

_OPTION = re.compile(r"([a-z]\w*)=(.*)", re.DOTALL)
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the command that are not the engine's. name: of the results' folder. changes: of
    the models."""

    evaluator: str
    options: dict[str, Any]
    name: str
    output: Path | None
    changes: list[str]
    engine: str | None
    overwrite: bool
    as_json: bool
    trust_remote_code: bool

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            expected = "expected letters, digits, and . _ -"
            raise RecipeError(f"found {self.name!r}, {expected}", place="command line: --name")


def split(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Models, and options with YAML values. Raises RecipeError."""
    targets: list[str] = []
    options: dict[str, Any] = {}
    for each in arguments:
        found = _OPTION.fullmatch(each)
        if found is None or Path(each).exists():
            targets.append(each)
            continue
        try:
            options[found[1]] = yaml.safe_load(found[2])
        except yaml.YAMLError as error:
            problem = f"{each!r} has no YAML value: {' '.join(str(error).split())[:200]}"
            raise RecipeError(problem, place="command line") from error
    if not targets:
        raise RecipeError("no model is named", place="command line", hint="MODEL")
    return targets, options
