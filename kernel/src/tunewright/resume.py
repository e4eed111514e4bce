"""Checks whether a run may be resumed with a recipe: fields that may change, and those that may
not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright import folder, registry
from tunewright.check import Resolved, resolve
from tunewright.errors import RecipeError
from tunewright.kinds import sections
from tunewright.source import shortened

#: sections that do not change what is trained
_SECTIONS = ("loggers", "engine", "launch", "output", "data_root")
#: fields of `training` that control logging, saving and the batching of evaluation; and how a step
#: is spread over ranks and forward passes: batches know whether its rows stay the same
_TRAINING = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "rows_per_step",
    "logging_steps",
    "save_steps",
    "saves_per_epoch",
    "save_total_limit",
    "eval_steps",
    "evals_per_epoch",
    "per_device_eval_batch_size",
    "max_bad_steps",
    "early_stopping_patience",
)
_LENGTH = ("max_steps", "epochs")


def check_same(old: dict[str, Any], resolved: Resolved, path: Path, done: int = 0) -> None:
    """Compare the recipe with the run's original one. done: number of finished stages.

    Raises RecipeError with the first field that differs and may not. Plugin options may change if
    marked: `Field(json_schema_extra={"may_change": True})`. Paths of data may change too: its
    fingerprint is compared later.
    """
    before, now = (
        dict(_flat(_unspread(values))) for values in (_completed(old), resolved.recipe.as_dict())
    )
    for field in sorted(before.keys() | now.keys()):
        values = before.get(field), now.get(field)
        if values[0] == values[1] or _may_change(field, values, resolved, done):
            continue
        onwards = f"go on with: tunewright train {path / folder.RECIPE_FILE} --resume"
        if done == len(resolved.stages):
            onwards = "the run is finished: another recipe, whose `model` is its result, trains on"
        was, is_ = (shortened(repr(value), 200) for value in values)
        raise RecipeError(
            f"{field} was {was} when the run began, is {is_} now",
            place=str(path),
            hint=f"{onwards}; or --overwrite to begin anew",
        )


def _completed(old: dict[str, Any]) -> dict[str, Any]:
    """The recipe with defaults for fields that did not exist in the version that wrote it."""
    try:
        return resolve(old, combined=False).recipe.as_dict()
    except RecipeError:  # a plugin has changed, or is gone: the comparison will report it
        return old


def _unspread(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without accelerators that spread the work over processes: they change where weights
    are, not what they become."""
    kept = []
    for section in recipe.get("accelerators") or []:
        name = section.get("name") if isinstance(section, dict) else section
        entry = next((e for e in registry.entries("accelerator") if e.name == name), None)
        if entry is None or not registry.load(entry).needs_processes:
            kept.append(section)
    return {**recipe, "accelerators": kept}


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _flat(item, f"{at}.{number}")
    else:
        yield at, value


def _may_change(field: str, values: tuple[Any, Any], resolved: Resolved, done: int) -> bool:
    head, *rest = field.split(".")
    if head in _SECTIONS:
        return True
    number = int(rest.pop(0)) if head == "stages" and rest else None
    inner = rest[0] if number is not None and rest else head
    if inner in ("data", "eval_data"):
        return rest[-1:] == ["path"] and None not in values  # with the same number of sources
    if inner == "training":
        last = rest[-1]
        return last in _TRAINING or (last in _LENGTH and _is_longer(values, number, resolved, done))
    kind = sections().get(head)
    plugin = resolved.plugin(kind.name) if kind else None
    if number is not None and number < len(resolved.stages):
        plugin = resolved.stages[number].choice.plugin
    option = plugin.Options.model_fields.get(rest[0]) if plugin and rest else None
    extra = option.json_schema_extra if option else None
    return isinstance(extra, dict) and bool(extra.get("may_change"))


def _is_longer(values: tuple[Any, Any], number: int | None, resolved: Resolved, done: int) -> bool:
    """Whether a stage only becomes longer, with a schedule that does not depend on it.

    number: of the stage; None: the recipe's own training, which applies to all.
    """
    concerned = range(len(resolved.stages)) if number is None else [number]
    for each in concerned:
        named = resolved.stages[each].choices
        choice = named.get("scheduler") or resolved.choices.get("scheduler")
        if each < done or choice is None or choice.plugin.needs_total_steps:
            return False
    old, new = values
    return isinstance(old, int | float) and isinstance(new, int | float) and new > old
