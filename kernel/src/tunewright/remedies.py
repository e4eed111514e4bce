"""Remedies for mistakes in a recipe."""

from tunewright import registry
from tunewright.errors import Problem, did_you_mean
from tunewright.kinds import sections
from tunewright.recipe import RecipeFields, Training

_NEEDED = {
    "model": "a hub id, a local folder, or tiny",
    "output": "a folder for the run, such as runs/first",
}


def names(kind: str) -> str:
    """Installed plugins of a kind, for a hint."""
    found = sorted({entry.name for entry in registry.entries(kind)})
    return f"there is: {', '.join(found)}" if found else f"no {kind} is installed"


def instead(key: str) -> str:
    """Suggestion for an unknown section."""
    own = f"training.{key}" if key in Training.model_fields else ""
    if other := own or registry.shipped_table()["keys"].get(key):
        return f"write {other}"
    return did_you_mean(key, [*RecipeFields.model_fields, "stage", *sections()])


def with_remedy(problem: Problem) -> Problem:
    """The problem with a remedy, if a field of the recipe itself is missing or wrong."""
    match problem:
        case Problem(("stages",), "is missing"):
            return Problem(("stage",), "is missing", names("stage"))
        case Problem((str(key),), "is missing") if key in _NEEDED:
            return Problem((key,), "is missing", _NEEDED[key])
        case Problem(("data", int()), message, ""):
            return Problem(problem.path, message, "such as - path: my.jsonl")
        case Problem(("data",), message, ""):
            return Problem(("data",), message, "write a list of sources: - path: my.jsonl")
        case Problem(("stages", int(), "name"), message, ""):
            return Problem(problem.path, message, names("stage"))
    return problem
