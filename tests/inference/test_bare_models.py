"""Models without a run folder: predicted, evaluated and exported as those of runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from export.exporting import export, loud, report, says
from predict.trained import ROWS, call, read, train, write
from tunewright import RecipeError, RunError
from tunewright_evaluate import command as evaluate
from tunewright_predict import command as predict


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `model`, and `adapter`: a loud one on it, which names it."""
    base = tmp_path_factory.mktemp("bare")
    run = train(base, training={"max_steps": 2, "save_steps": 1, "precision": "fp32"})
    shutil.copytree(run / "model", base / "model")
    shutil.move(run, base / "first")
    lora = {"name": "lora", "rank": 4}
    second = train(base, model=str(base / "model"), adapter=lora)
    shutil.copytree(second / "model", base / "adapter")
    loud(base / "adapter", seed=1)
    return base


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "adapter", "first"):
        shutil.copytree(made / name, tmp_path / name)
    return write(tmp_path / "rows.jsonl", ROWS).parent


FAST = ("--max-new-tokens", 5)
CPU = ("--set", "family.device=cpu")


def texts(target: str, output: str, *more: Any) -> list[str]:
    call(predict, target, "--data", "rows.jsonl", "--output", output, *FAST, *CPU, *more)
    return [row["text"] for row in read(Path(output))]


def test_a_models_folder_answers_as_its_run(here: Path) -> None:
    bare = texts("model", "bare.jsonl", "--set", "template=chatml")
    assert bare == texts("first", "run.jsonl")
    assert bare == texts("first/model", "result.jsonl")
    assert bare == texts("first/checkpoints/step-2", "step.jsonl")
    assert bare != texts("adapter", "adapter.jsonl", "--set", f"model={here / 'model'}")


def test_predictions_go_on_with_the_same_model_only(here: Path, monkeypatch: Any) -> None:
    from tunewright_engine_hf.opened import OpenedEngine

    own, submitted = OpenedEngine.submit, []

    def submit(engine: Any, request: Any, listener: Any) -> Any:
        if len(submitted) == 3:
            raise RunError("the engine was lost")
        submitted.append(request)
        return own(engine, request, listener)

    monkeypatch.setattr(OpenedEngine, "submit", submit)
    with pytest.raises(RunError, match="lost"):
        texts("model", "out.jsonl", "--slots", 1)
    assert Path("out.jsonl.part").exists()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    with pytest.raises(RecipeError, match="begun with changes"):
        texts("model", "out.jsonl", "--set", "template=qwen", "--slots", 1)
    weights = here / "model/model.safetensors"
    kept = weights.stat()
    weights.touch()
    with pytest.raises(RecipeError, match="run is not what it was"):
        texts("model", "out.jsonl", "--slots", 1)
    import os

    os.utime(weights, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert len(texts("model", "out.jsonl", "--slots", 1)) == len(ROWS)


def test_evaluations_stand_below_the_current_folder(here: Path) -> None:
    call(evaluate, "model", "adapter", "--with", "perplexity", "data=rows.jsonl", *CPU,
         "--set", f"model={here / 'model'}")  # fmt: skip
    for name in ("model", "adapter"):
        found = json.loads((here / f"evaluations/{name}/perplexity/results.json").read_text())
        assert found["rows"] == len(ROWS) and found["metrics"]["loss"] > 0
    said = call(evaluate, "model", "--with", "perplexity", "data=rows.jsonl", *CPU,
                "--set", f"model={here / 'model'}")  # fmt: skip
    assert "is complete" in said.output
    assert not (here / "model/evaluations").exists()


def test_places_that_cannot_be_written_are_named(here: Path) -> None:
    (here / "evaluations").write_text("a file")
    with pytest.raises(RunError, match="evaluations/model/perplexity: cannot be written"):
        call(evaluate, "model", "--with", "perplexity", "data=rows.jsonl", *CPU)


def test_data_has_to_be_named(here: Path) -> None:
    with pytest.raises(RecipeError, match=r"no eval_data.*data=FILE"):
        call(evaluate, "model", "--with", "perplexity", *CPU)
    with pytest.raises(RecipeError, match="name a file"):
        call(predict, "model", "--data", "data", "--output", "out.jsonl", *CPU)
    with pytest.raises(RecipeError, match="belongs to training"):
        call(predict, "model", "--data", "rows.jsonl", "--output", "o", "--set", "stage=sft")


def test_an_adapters_folder_is_merged(here: Path) -> None:
    export("adapter", "--to", "safetensors", *CPU, "--set", f"model={here / 'model'}")
    found = AutoModelForCausalLM.from_pretrained("adapter-safetensors")
    base = AutoModelForCausalLM.from_pretrained("model")
    plain = says(base, here / "model")
    expected = says(PeftModel.from_pretrained(base, "adapter"), here / "model")
    torch.testing.assert_close(says(found, here / "model"), expected, rtol=1e-3, atol=1e-3)
    assert (plain - expected).abs().max() > 0.1  # the adapter is loud
    assert report(here / "adapter-safetensors")["verified"]


def test_a_models_folder_and_a_checkpoint_are_exported(here: Path) -> None:
    export("model", "--to", "safetensors", "dtype=bfloat16", *CPU)
    found = AutoModelForCausalLM.from_pretrained("model-safetensors")
    assert found.dtype == torch.bfloat16
    card = (here / "model-safetensors/README.md").read_text()
    assert "exported with Tunewright" in card and "## Recipe" not in card
    export("first/checkpoints/step-1", "--to", "safetensors", "--output", "one", *CPU)
    assert "those of `checkpoints/step-1`" in (here / "one/README.md").read_text()
    last = says(AutoModelForCausalLM.from_pretrained("first/model"), here / "one")
    assert (says(AutoModelForCausalLM.from_pretrained("one"), here / "one") - last).abs().max() > 0
