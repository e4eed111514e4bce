"""Runs of every quantizer with every stage and every adapter, on a tiny twin, for
docs/reference/support.md.

    PYTHONPATH=tests tunewright env run quantizers -- python -m envs.quantizers.quantizer_runs

adds to scripts/support_quantizers.json the cells that it lacks, as those of a new adapter; with
--all it runs all of them again. test_support.py compares some.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from envs.quantizers.quantizer_setup import distance, logits
from tunewright.check import RecipeProblems, resolve
from tunewright.registry import entries
from tunewright.run import Run
from tunewright.types import StageResult
from tunewright_conformance import stage as conformance_stage
from tunewright_conformance.trial import go, recipe
from tunewright_hf.models.peft import PromptAdapter

FILE = Path(__file__).parents[3] / "scripts/support_quantizers.json"
#: how a cell reads that was not run here; others are "runs" or "refused: REASON"
NOT_RUN = "not run here"

#: row → section of the recipe, in the order of the page
QUANTIZERS: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"name": "bitsandbytes", "bits": 4},
    "hqq": {"name": "hqq", "bits": 4},
    "quanto": {"name": "quanto", "weights": "int8"},
    "torchao": {"name": "torchao", "type": "int8"},
    "torchao with qat": {"name": "torchao", "type": "int8", "qat": True},
    "eetq": {"name": "eetq"},
    "gptq": {"name": "gptq", "bits": 4},
    "awq": {"name": "awq"},
    "aqlm": {"name": "aqlm"},
    "compressed_tensors": {"name": "compressed_tensors"},
    "fp8": {"name": "fp8"},
    "mxfp4": {"name": "mxfp4"},
}
#: options of adapters that have to be given
ADAPTERS: dict[str, dict[str, Any]] = {
    "freeze": {"name": "freeze", "trainable_layers": 1},
    "trainable_tokens": {"name": "trainable_tokens", "tokens": ["a", "e"]},
}


def cell(quantizer: str, stage: str = "sft", adapter: str = "") -> str:
    """The outcome of a run of two steps. adapter: default: LoRA, or full where that is refused."""
    adapter = adapter or ("full" if "qat" in quantizer else "lora")
    (entry,) = [each for each in entries("stage") if each.name == stage]
    family: dict[str, Any] = {"name": "qwen", "device": "cpu", "dtype": "float32"}
    if quantizer == "mxfp4":
        family["name"] = "gpt_oss"
    sections = {
        "family": family,
        "quantizer": QUANTIZERS[quantizer],
        "adapter": ADAPTERS.get(adapter, {"name": adapter}),
    }
    with tempfile.TemporaryDirectory() as name:
        section, sort = conformance_stage.section(entry), conformance_stage.rows(entry)
        if stage == "pretrain":
            section["packing"] = False  # gpt-oss, of mxfp4, has none
        more = {"max_steps": 2, "max_length": 512, "learning_rate": 2e-2}
        asked = recipe(section, sort, Path(name), 8, sections, **more)
        try:
            resolve(asked)
        except RecipeProblems as error:
            said = error.problems[0].message
            lacking = ("needs an NVIDIA GPU", "is not installed")
            return NOT_RUN if any(each in said for each in lacking) else f"refused: {said}"
        trial = go(asked)
        losses = trial.losses
        assert len(losses) == 2 and all(map(math.isfinite, losses)), losses
        if stage == "sft" and trial.result.saves == "adapter":
            check_merged(Run(resolve(asked)), trial.result)
    return "runs"


def check_merged(run: Run, result: StageResult) -> None:
    """What the adapter adds to the quantized model, it adds to the dequantized one: PEFT may read
    packed weights as plain ones."""
    adapted = run.load(prior=result, trainable=False)
    if isinstance(run.plugin("adapter"), PromptAdapter):
        return  # no change of weights
    found = logits(adapted)
    with adapted.model.disable_adapter():
        plain = logits(adapted)
    merged = run.plugin("adapter").merge(adapted)
    effect = distance(found, plain)
    assert effect > 0.005, f"the adapter has no effect: {effect}"
    apart = distance(logits(merged), found)
    assert apart < 0.1 * effect + 1e-3, f"merged and adapter differ by {apart}, effect {effect}"


def stages() -> list[str]:
    return sorted(entry.name for entry in entries("stage"))


def adapters() -> list[str]:
    return sorted(entry.name for entry in entries("adapter"))


def main() -> None:
    """Run the cells that the file lacks, or with --all every one."""
    known = {} if "--all" in sys.argv or not FILE.is_file() else json.loads(FILE.read_text("utf-8"))
    found: dict[str, dict[str, dict[str, str]]] = {"stages": {}, "adapters": {}}
    failed = 0
    for section, argument, names in (
        ("stages", "stage", stages()),
        ("adapters", "adapter", adapters()),
    ):
        for quantizer in QUANTIZERS:
            row = found[section].setdefault(quantizer, {})
            old = known.get(section, {}).get(quantizer, {})
            for name in names:
                try:
                    row[name] = old.get(name) or cell(quantizer, **{argument: name})
                except Exception as error:
                    failed += 1
                    print(
                        f"{quantizer} × {name} fails: {type(error).__name__}: {error}", flush=True
                    )
                else:
                    print(f"{quantizer} × {name}: {row[name]}", flush=True)
    FILE.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.exit(f"{failed} runs failed, and were not written" if failed else 0)


if __name__ == "__main__":
    main()
