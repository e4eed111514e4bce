"""Whether a run may go on with a recipe: which fields may change, and which may not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright import folder
from tunewright.check import Resolved, resolve
from tunewright.errors import RecipeError
from tunewright.kinds import sections
from tunewright.source import shortened

#: sections that do not change what is trained
_SECTIONS = ("loggers", "engine", "launch", "output", "data_root")
#: fields of `training` that say when something is said or written, and how evaluation is batched
_TRAINING = (
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "eval_steps",
    "per_device_eval_batch_size",
    "max_bad_steps",
    "early_stopping_patience",
)
_LENGTH = ("max_steps", "epochs")


def check_same(old: dict[str, Any], resolved: Resolved, path: Path, done: int = 0) -> None:
    """Compare the recipe with the one that the run began with. done: stages that are finished.

    Raises RecipeError that names the first field which differs and may not. Options of plugins may
    change where they say so: `Field(json_schema_extra={"may_change": True})`. Where data lies may
    change too: its fingerprint is compared later.
    """
    before, now = dict(_flat(_completed(old))), dict(_flat(resolved.recipe.as_dict()))
    for field in sorted(before.keys() | now.keys()):
        values = before.get(field), now.get(field)
        if values[0] == values[1] or _may_change(field, values, resolved, done):
            continue
        command = f"tunewright train {path / folder.RECIPE_FILE} --resume"
        was, is_ = (shortened(repr(value), 200) for value in values)
        raise RecipeError(
            f"{field} was {was} when the run began, is {is_} now",
            place=str(path),
            hint=f"go on with: {command}; or --overwrite to begin anew",
        )


def _completed(old: dict[str, Any]) -> dict[str, Any]:
    """The recipe with the defaults of fields that the version which wrote it did not have."""
    try:
        return resolve(old).recipe.as_dict()
    except RecipeError:  # of a plugin that has changed, or is gone: the first difference says so
        return old


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
        return rest[-1:] == ["path"] and None not in values  # no source more or less
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
    """Whether a stage only goes on longer, under a schedule that does not depend on it.

    number: of the stage; None: the recipe's own training, which holds for all.
    """
    concerned = range(len(resolved.stages)) if number is None else [number]
    for each in concerned:
        named = resolved.stages[each].choices
        choice = named.get("scheduler") or resolved.choices.get("scheduler")
        if each < done or choice is None or choice.plugin.needs_total_steps:
            return False
    old, new = values
    return isinstance(old, int | float) and isinstance(new, int | float) and new > old
