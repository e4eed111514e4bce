"""Family of a checkpoint, from the `model_type` of its config.json."""

import json
from pathlib import Path
from typing import Any

from tunewright import registry
from tunewright.errors import RecipeError

_DAMAGED = "download or copy it again"


def detect_family(model: str) -> str:
    """The family that the checkpoint's `model_type` maps to in metadata. Raises RecipeError."""
    path, config = Path(model).expanduser(), None
    if (path / "config.json").is_file():
        config = _config(path / "config.json")
    elif model != "tiny" and not path.exists():
        for point in registry.group("model_config"):
            config = config or point.load()(model, None)
    known = {point.name: point.value for point in registry.group("model_type")}
    if (found := str((config or {}).get("model_type", ""))) in known:
        return known[found]
    near = found and registry.hint_for("model_type", found, known)
    hint = "; ".join(filter(None, [near, "name one with `family:`"]))
    problem = "does not tell its family"
    if found:
        problem = f"model_type {found!r} belongs to no installed family"
    raise RecipeError(f"{model!r} {problem}", place="model", hint=hint)


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = f"cannot be read: {' '.join(str(error).split())[:200]}"
        raise RecipeError(problem, place=str(path), hint=_DAMAGED) from error
    if not isinstance(found, dict):
        problem = f"holds a {type(found).__name__}, not an object"
        raise RecipeError(problem, place=str(path), hint=_DAMAGED)
    return found
