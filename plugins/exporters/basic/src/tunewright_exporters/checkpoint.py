"""Write a complete checkpoint."""

import shutil
from typing import Any

from tunewright import RecipeError
from tunewright.types import ExportRequest, RunContext
from tunewright_hf.models.export import save_merged
from tunewright_hf.models.hub import locate
from tunewright_hf.models.native_export import export_original


def write(run: RunContext, request: ExportRequest, options: Any) -> None:
    """Write a checkpoint with the options of Safetensors. Raises RecipeError and RunError."""
    if options.layout == "native":
        save_merged(run, request, request.folder, options.dtype, options.shard_size)
        return
    if request.checkpoint == "tiny":
        hint = "leave out layout=original"
        raise RecipeError("a tiny twin has no checkpoint to go by", place="model", hint=hint)
    original = locate(request.checkpoint, run.plugin("family").options.revision)
    saved, made = (request.folder / name for name in (".native", ".original"))
    save_merged(run, request, saved)
    export_original(saved, original, made, lambda line, _: request.say(line))
    shutil.rmtree(saved)
    for path in made.iterdir():
        path.rename(request.folder / path.name)
    made.rmdir()
