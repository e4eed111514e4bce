"""Write and load a PEFT adapter."""

import json
from pathlib import Path
from typing import Any

import peft
from transformers import AutoModelForCausalLM

from tunewright import RecipeError, RunError
from tunewright.types import ExportRequest, RunContext
from tunewright_hf.models.export import save_result
from tunewright_hf.models.hub import locate


def write(run: RunContext, request: ExportRequest, base: str | None) -> None:
    """Write the adapter with a base model's name that means something elsewhere. Raises RecipeError
    if the run trained no adapter, RunError if it cannot be written."""
    if request.loaded.saves != "adapter":
        raise RecipeError(
            "the run trained the model itself, and has no adapter",
            place="adapter",
            hint="tunewright export RUN --to safetensors",
        )
    if request.checkpoint == "tiny":
        raise RecipeError("a tiny twin has no checkpoint to load the adapter on", place="model")
    save_result(request.loaded, request.folder, run.plugin("template"))
    file = request.folder / "adapter_config.json"
    config = json.loads(file.read_text("utf-8"))
    config["base_model_name_or_path"] = base or request.checkpoint
    config["revision"] = run.plugin("family").options.revision
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if base is None and Path(request.checkpoint).expanduser().exists():
        request.say(
            f"the adapter names its base model {request.checkpoint}, a folder of this machine: "
            "base=ID names it for others"
        )


def load(run: RunContext, request: ExportRequest) -> Any:
    """The adapter on its base model, as PEFT loads it. Raises RunError."""
    folder = locate(request.checkpoint, run.plugin("family").options.revision)
    dtype = next(request.loaded.model.parameters()).dtype
    try:
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=run.trust_remote_code
        )
        return peft.PeftModel.from_pretrained(base, request.folder)
    except Exception as error:  # whatever other programs' users would meet
        problem = f"PEFT cannot load it: {' '.join(str(error).split())[:300]}"
        raise RunError(problem, place=str(request.folder)) from error
