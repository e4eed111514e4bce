"""From a YAML file and `key=value` overrides to a checked Recipe.

What stands in a plugin's section is checked against that plugin's own Options. Every problem
becomes one line with file, line, field and a remedy.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tunewright import registry, yamlio
from tunewright.errors import RecipeError, did_you_mean
from tunewright.recipe import Recipe, Section, StageSection, Training


@dataclass
class Source:
    """Where a recipe was read from: turns the path of a value into the place of an error."""

    file: str
    lines: dict[yamlio.Path_, int] = field(default_factory=dict)
    overridden: set[yamlio.Path_] = field(default_factory=set)

    def place(self, path: yamlio.Path_) -> str:
        shown = ".".join(map(str, path))
        if any(path[: len(key)] == key[: len(path)] for key in self.overridden):
            return f"command line: {shown}"
        line = next(
            (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None
        )
        return ": ".join(filter(None, [f"{self.file}:{line}" if line else self.file, shown]))

    def error(
        self, failure: ValidationError, at: yamlio.Path_, model: type[BaseModel]
    ) -> RecipeError:
        """Every problem that pydantic found below `at`, a line each."""
        lines = []
        for found in failure.errors():
            path = at + tuple(found["loc"])
            if "stage" in self.file_keys and path[:2] == ("stages", 0):
                path = ("stage", *path[2:])
            lines.append(
                str(RecipeError(_problem(found), place=self.place(path), hint=_hint(found, model)))
            )
        return RecipeError("\n".join(lines))

    @property
    def file_keys(self) -> set[Any]:
        return {path[0] for path in (*self.lines, *self.overridden) if len(path) == 1}


@dataclass
class Resolved:
    """A recipe with its plugins found and its options checked."""

    recipe: Recipe
    source: Source


def _problem(found: Any) -> str:
    if found["type"] == "extra_forbidden":
        return "unknown key"
    if found["type"] == "missing":
        return "is missing"
    message = found["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be"):
        return f"found {found['input']!r}, expected {message.removeprefix('Input should be ')}"
    return str(message)


def _hint(found: Any, model: type[BaseModel]) -> str:
    if found["type"] != "extra_forbidden":
        return ""
    owner: Any = model
    for key in found["loc"][:-1]:
        inner = owner.model_fields.get(key) if isinstance(key, str) else None
        owner = inner.annotation if inner else None
        if not (isinstance(owner, type) and issubclass(owner, BaseModel)):
            return ""
    known = [*owner.model_fields, *(["stage"] if owner is Recipe else [])]
    return did_you_mean(str(found["loc"][-1]), known)


def _override(value: Any, source: Source, text: str) -> None:
    """Lay one `training.epochs=3` over the recipe's value, in place."""
    dotted, equals, written = text.partition("=")
    if not equals or not dotted:
        raise RecipeError(
            f"found {text!r}, expected key=value such as training.epochs=3", place="command line"
        )
    *parents, last = path = tuple(int(key) if key.isdigit() else key for key in dotted.split("."))
    place, here = f"command line: {dotted}", value
    try:
        for depth, key in enumerate(parents):
            if isinstance(here, dict):
                here.setdefault(key, {})
            if isinstance(here[key], str):  # a section that is only a name
                here[key] = {"name": here[key]}
            elif here[key] is None:
                here[key] = {}
            if (
                here[key] == {}
                and depth == 0
                and (name := registry.shipped_table()["defaults"].get(str(key)))
            ):
                here[key] = {"name": name}
            here = here[key]
        here[last] = yamlio.parse(written, place)[0]
    except (TypeError, IndexError, KeyError) as error:
        raise RecipeError("names no field of the recipe", place=place) from error
    source.overridden.add(path)


def read(path: Path, overrides: list[str] | None = None) -> tuple[Recipe, Source]:
    """Read a recipe and lay overrides over it. The plugins' own sections are checked by `check`.
    Raises RecipeError."""
    value, lines = yamlio.read(path)
    source = Source(str(path), lines)
    if not isinstance(value, dict):
        raise RecipeError(
            "found no sections, expected at least model, data, stage and output", place=str(path)
        )
    for override in overrides or []:
        _override(value, source, override)
    value.setdefault("data_root", str(path.resolve().parent))
    if "stage" in value and isinstance(value["stage"], str):
        value["stage"] = {"name": value["stage"]}
    try:
        return Recipe.model_validate(value), source
    except ValidationError as error:
        raise source.error(error, (), Recipe) from error


def options(
    kind: str, section: Section, source: Source, at: yamlio.Path_
) -> tuple[registry.Entry, type[Any], Any]:
    """The entry, class and checked Options of the plugin that a section names. Raises
    RecipeError."""
    entry = registry.find(kind, section.name, source.place(at))
    plugin = registry.load(entry, source.place(at))
    try:
        return entry, plugin, plugin.Options.model_validate(section.options)
    except ValidationError as error:
        raise source.error(error, at, plugin.Options) from error


def _training(recipe: Recipe, stage: StageSection, source: Source, at: yamlio.Path_) -> Training:
    laid = {**recipe.training.model_dump(exclude_unset=True), **stage.training}
    try:
        return Training.model_validate(laid)
    except ValidationError as error:
        raise source.error(error, (*at, "training"), Training) from error


def stage_recipe(recipe: Recipe, number: int, source: Source | None = None) -> Recipe:
    """The recipe as stage `number` (0 is the first) sees it: its own data and training laid over
    the others."""
    stage = recipe.stages[number]
    own: dict[str, Any] = {
        "training": _training(recipe, stage, source or Source("recipe"), ("stages", number))
    }
    for name in ("data", "eval_data"):
        if (written := getattr(stage, name)) is not None:
            own[name] = written
    return recipe.model_copy(update=own)


def _resolved(section: Section, checked: Any) -> Section:
    kept = {name: getattr(section, name) for name in type(section).model_fields}
    return type(section)(**{**checked.model_dump(mode="json"), **kept})


def check(recipe: Recipe, source: Source, *, look: bool = False) -> Recipe:
    """Check every section against its plugin. Returns the recipe with all options written out.
    Raises RecipeError.

    Imports the plugins that the recipe names, and neither torch nor transformers. look: whether
    sources of data are looked for: an Entry's validators then find `root` and the dataset's options
    as `dataset` in their context.
    """
    new: dict[str, Any] = {}
    for kind in ("family", "template", "quantizer", "adapter", "dataset", "optimizer", "engine"):
        if (section := getattr(recipe, kind)) is not None:
            new[kind] = _resolved(section, options(kind, section, source, (kind,))[2])
    for kind in ("logger", "accelerator"):
        key = f"{kind}s"
        new[key] = [
            _resolved(s, options(kind, s, source, (key, i))[2])
            for i, s in enumerate(getattr(recipe, key))
        ]
    _, dataset, chosen = options("dataset", recipe.dataset, source, ("dataset",))
    context = {"root": Path(recipe.data_root or "."), "dataset": chosen} if look else None
    new["stages"] = []
    for number, stage in enumerate(recipe.stages):
        at: yamlio.Path_ = ("stage",) if "stage" in source.file_keys else ("stages", number)
        new["stages"].append(_resolved(stage, options("stage", stage, source, at)[2]))
        one = stage_recipe(recipe, number, source)
        inner = at if stage.data is not None else ()
        if not one.data:
            raise RecipeError(
                "is empty, expected at least one source", place=source.place((*inner, "data"))
            )
        data_entries(dataset, one.data, source, (*inner, "data"), context)
        inner = at if stage.eval_data is not None else ()
        for name, sources in one.eval_data.items():
            data_entries(dataset, sources, source, (*inner, "eval_data", name), context)
    return recipe.model_copy(update=new)


def data_entries(
    dataset: type[Any],
    entries: list[Any],
    source: Source | None = None,
    at: yamlio.Path_ = ("data",),
    see: Any = None,
) -> list[Any]:
    """The entries of `data` as the dataset plugin's own Entry objects. Raises RecipeError."""
    checked = []
    for index, entry in enumerate(entries):
        try:
            checked.append(dataset.Entry.model_validate(entry, context=see))
        except ValidationError as error:
            raise (source or Source("recipe")).error(error, (*at, index), dataset.Entry) from error
    return checked
