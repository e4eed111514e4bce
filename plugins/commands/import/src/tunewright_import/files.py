"""Read configurations, and write the recipes they stand for."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.terminal import printable
from tunewright_import import axolotl, llamafactory, swift, trl
from tunewright_import.commands import find_command
from tunewright_import.translation import Refused, Translation
from tunewright_import.writing import as_yaml, summary

PROGRAMS: dict[str, Callable[[Mapping[str, Any], Path, Path], Translation]] = {
    "axolotl": axolotl.translate,
    "llamafactory": llamafactory.translate,
    "swift": swift.translate,
    "trl": trl.translate,
}
#: program → verbs of its command that train, where a script may give it
_VERBS = {"swift": swift.VERBS, "trl": trl.VERBS}
_MOST = 1_000_000  # bytes of a configuration


def translate_file(program: str, source: Path, to: Path | None) -> None:
    """Translate a configuration, and write its recipe to a new file or to standard output. Raises
    RecipeError where it cannot be read or has no counterpart, and where the file exists."""
    folder = to.parent if to else Path()
    try:
        result = translated(program, source, folder)
    except Refused as reason:
        raise RecipeError(str(reason), place=str(source)) from None
    if notes := summary(result.notes):
        typer.echo(printable(notes), err=True)
    if result.command:
        typer.echo(printable(result.command))
    elif to is None:
        typer.echo(printable(as_yaml(result, source.name)), nl=False)
    else:
        _write(to, as_yaml(result, source.name))
        typer.echo(printable(f"written: {to}"))
        if problems := _problems(to):
            typer.echo(printable(problems), err=True)


def translate_folder(program: str, source: Path, to: Path | None) -> None:
    """Translate all configurations below a folder to recipes of the same names below another, and
    print what became of each. Raises RecipeError if no folder is named."""
    if to is None:
        raise RecipeError("needs a folder for the recipes", place="command line: --to")
    for file in configurations(program, source):
        target = (to / file.relative_to(source)).with_suffix(".yaml")
        name = file.relative_to(source)
        try:
            result = translated(program, file, target.parent)
        except (Refused, RecipeError) as reason:
            typer.echo(printable(f"{name}: refused: {reason}"))
            continue
        if result.command:
            typer.echo(printable(f"{name}: {result.command}"))
        else:
            _write(target, as_yaml(result, str(name)))
            typer.echo(printable(f"{name}: {target}"))
            if problems := _problems(target):
                typer.echo(printable(problems))


def configurations(program: str, folder: Path) -> list[Path]:
    """Files below a folder that may hold a configuration of a program."""
    patterns = ("*.yaml", "*.yml", *(["*.sh"] if program in _VERBS else []))
    found = (path for pattern in patterns for path in folder.rglob(pattern))
    return sorted(path for path in found if path.is_file())


def translated(program: str, source: Path, recipe_folder: Path) -> Translation:
    """The translation of a file. Raises RecipeError where it cannot be read, Refused where it has
    no counterpart."""
    if source.suffix == ".sh":
        if program not in _VERBS:
            raise Refused("is a script; the configuration that it names can be translated")
        command = find_command(_text(source), program, _VERBS[program])
        names = {"_verb": command.verb, "_variables": command.variables}
        return PROGRAMS[program]({**command.flags, **names}, source, recipe_folder)
    return PROGRAMS[program](read(source), source, recipe_folder)


def read(source: Path) -> dict[str, Any]:
    """Keys of a configuration in YAML or JSON. Raises RecipeError."""
    try:
        text = _text(source)
        found = json.loads(text) if source.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problem = f"cannot be read: {' '.join(str(error).split())[:200]}"
        raise RecipeError(problem, place=str(source)) from error
    if not isinstance(found, dict):
        raise RecipeError("holds no mapping of keys to values", place=str(source))
    return {str(key): _number(value) for key, value in found.items()}


def _text(source: Path) -> str:
    try:
        if source.stat().st_size > _MOST:
            raise RecipeError("is larger than 1 MB: it is no configuration", place=str(source))
        return source.read_text("utf-8")
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {' '.join(str(error).split())[:200]}"
        raise RecipeError(problem, place=str(source)) from error


def _problems(recipe: Path) -> str:
    """Problems of a recipe, as `recipe check` finds them; "" if there are none."""
    try:
        resolve(recipe)
    except RecipeError as error:
        return f"recipe check: {error}"
    return ""


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; the other programs read a number."""
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _write(to: Path, text: str) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise RecipeError("is there already", place=str(to), hint="give another name") from None
    except OSError as error:
        raise RecipeError(f"cannot be written: {error.strerror}", place=str(to)) from error
