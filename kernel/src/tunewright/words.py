"""Numbers and names in sentences."""

from collections.abc import Sequence
from pathlib import Path

from tunewright.errors import RecipeError


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Names of folders, with the parent's where two are alike. Raises RecipeError if that does not
    tell them apart."""
    paths = [folder.resolve() for folder in folders]
    short = [path.name for path in paths]
    names = [
        path.name if short.count(path.name) == 1 else f"{path.parent.name}-{path.name}"
        for path in paths
    ]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"two runs are named {name}", place="command line")
    return names
