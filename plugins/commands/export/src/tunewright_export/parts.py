"""Arguments of `tunewright export`. Imports no torch."""

import math
from pathlib import Path

from tunewright import RecipeError

Part = tuple[Path, float]  # an adapter's folder and its weight


def parse_parts(written: list[str]) -> list[Part]:
    """Adapters and weights of `--adapter FOLDER=WEIGHT`. Raises RecipeError."""
    return [_part(each) for each in written]


def _part(written: str) -> Part:
    name, _, number = written.rpartition("=")
    try:
        weight = float(number) if name else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise RecipeError(
            f"found {written!r}, expected FOLDER or FOLDER=0.5", place="command line: --adapter"
        )
    folder = Path(name or number).expanduser()
    for found in (folder, folder / "model"):  # a run folder has its adapter there
        if (found / "adapter_config.json").is_file():
            return found, weight
    raise RecipeError("holds no adapter_config.json", place=str(folder))
