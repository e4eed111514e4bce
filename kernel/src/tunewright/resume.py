"""Whether a run may go on with a recipe: which fields may change, and which may not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright import folder
from tunewright.check import Resolved
from tunewright.errors import RecipeError
from tunewright.kinds import sections

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


def check_same(old: dict[str, Any], resolved: Resolved, path: Path) -> None:
    """Compare the recipe with the one that the run began with.

    Raises RecipeError that names the first field which differs and may not. Options of plugins may
    change where they say so: `Field(json_schema_extra={"may_change": True})`. Where data lies may
    change too: its fingerprint is compared later.
    """
    before, now = dict(_flat(old)), dict(_flat(resolved.recipe.as_dict()))
    for field in sorted(before.keys() | now.keys()):
        is_new = field not in before  # a field of a later version, at its default
        if (
            before.get(field) == now.get(field)
            or is_new
            or _may_change(field, before, now, resolved)
        ):
            continue
        command = f"tunewright train {path / folder.RECIPE_FILE} --resume"
        raise RecipeError(
            f"{field} was {before.get(field)!r} when the run began, is {now.get(field)!r} now",
            place=str(path),
            hint=f"go on with: {command}; or --overwrite to begin anew",
        )


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _flat(item, f"{at}.{number}")
    else:
        yield at, value


def _may_change(
    field: str, before: dict[str, Any], now: dict[str, Any], resolved: Resolved
) -> bool:
    head, *rest = field.split(".")
    last = field.rpartition(".")[2]
    if head in _SECTIONS or (
        last == "path" and ("data" in (head, *rest) or "eval_data" in (head, *rest))
    ):
        return True
    if "training" in (head, *rest[-2:-1]):
        return last in _TRAINING or (last in _LENGTH and _is_longer(field, before, now, resolved))
    kind = sections().get(head)
    if kind is None or kind.many or not rest:
        return False
    plugin = resolved.plugin(kind.name)
    option = plugin.Options.model_fields.get(rest[0]) if plugin else None
    extra = option.json_schema_extra if option else None
    return isinstance(extra, dict) and bool(extra.get("may_change"))


def _is_longer(field: str, before: dict[str, Any], now: dict[str, Any], resolved: Resolved) -> bool:
    """Whether the training only goes on longer, under a schedule that does not depend on it."""
    scheduler = resolved.plugin("scheduler")
    if scheduler is None or scheduler.needs_total_steps:
        return False
    old, new = before.get(field), now.get(field)
    return isinstance(old, int | float) and isinstance(new, int | float) and new > old
