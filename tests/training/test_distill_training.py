"""Training with distill: it learns, and what makes no difference to it."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from test_distill import distill, distill_run, run_stage
from test_grpo import adapted
from test_pairs_training import weights
from test_resume import assert_same_state
from training_setup import (
    VOCAB,
    loaded,
    logs_of,
    model,
    rows,
    stop_after,
)

from tunewright import RecipeError
from tunewright.errors import Stopped
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.checkpoints.folder import latest_checkpoint


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("options", [{}, {"divergence": "js"}, {"cache_top_k": 8}], ids=str)
def test_the_loss_falls_and_only_what_it_is_to_train_moves(tmp_path, how, options):
    made = adapted(how)
    before = weights(made)
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    evals = {"it": rows(5, seed=1)}
    run, result = run_stage(
        tmp_path,
        made,
        distill(**options),
        rows(4),
        evals=evals,
        max_steps=20,
        eval_steps=20,
        learning_rate={"full": 1e-2, "lora": 5e-2}[how],
    )
    losses = [each["loss"] for each in logs_of(run)]
    # random directions of four ranks cannot follow a random teacher far
    assert losses[-1] < {"full": 0.8, "lora": 0.99}[how] * losses[0]
    moved = {name for name, each in weights(made).items() if not torch.equal(each, before[name])}
    assert moved == trained
    assert (result.steps, result.tokens) == (20, logs_of(run)[-1]["tokens"])
    assert result.metrics["it_loss"] > 0 and result.metrics["it_nll"] > 0


def test_on_its_own_answers_it_learns_the_teacher(tmp_path):
    stage = distill(lmbda=1.0, max_new_tokens=6, divergence="reverse_kl")
    run, _ = run_stage(tmp_path, loaded(model()), stage, rows(4), max_steps=32, learning_rate=2e-2)
    losses = [each["loss"] for each in logs_of(run)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_a_share_of_the_examples_is_generated(tmp_path, monkeypatch):
    from tunewright_distill.training import DistillTrainer

    seen, mixed = [], DistillTrainer._mixed

    def watched(self: Any, chosen: Any) -> Any:
        batch = mixed(self, chosen)
        for (_, row), ids in zip(chosen, batch["inputs"]["input_ids"].tolist(), strict=True):
            start = sum(each == -100 for each in row["labels"])
            assert ids[:start] == row["input_ids"][:start]  # the prompt stays
            seen.append(ids[: len(row["input_ids"])] == row["input_ids"])
        return batch

    monkeypatch.setattr(DistillTrainer, "_mixed", watched)
    stage = distill(lmbda=0.5, max_new_tokens=4)
    run_stage(tmp_path, loaded(model()), stage, max_steps=12)
    assert 12 < sum(seen) < len(seen) - 12 == 36


# ---- what makes no difference --------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "data": {},
    "on-policy": {"lmbda": 0.5, "max_new_tokens": 4},
    "cached": {"cache_top_k": 5},
}


@pytest.mark.parametrize("name", CASES)
def test_four_passes_of_one_row_are_one_of_four(tmp_path, name):
    found = []
    for folder, size in {"4x1": 1, "1x4": 4}.items():
        made = loaded(model())
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        run, result = run_stage(
            tmp_path / folder, made, distill(**CASES[name]), evals={"it": rows(3)}, **how
        )
        found.append((logs_of(run), weights(made), result.metrics))
    for left, right in zip(found[0][0], found[1][0], strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_resumed_equals_uninterrupted(tmp_path, name):
    settings = {"max_steps": 6, "save_total_limit": 100, "evals": {"it": rows(3)}}

    def train(folder: str, **others: Any) -> FakeRun:
        made = adapted("full", 0.2)
        return run_stage(tmp_path / folder, made, distill(**CASES[name]), **others, **settings)[0]

    whole = train("whole", save_steps=6)
    first = distill_run(tmp_path / "parts")
    with pytest.raises(Stopped):
        train("parts", stop=stop_after(3), run=first)
    resumed = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    second = train("parts", checkpoint=resumed, save_steps=6)
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / each / "checkpoints" / "step-6" for each in ("whole", "parts")))


def test_logits_of_another_run_are_those_of_this_one(tmp_path):
    one, _ = run_stage(
        tmp_path / "a", loaded(model()), distill(cache_top_k=5), evals={"it": rows(3)}
    )
    folder = tmp_path / "a" / "checkpoints" / "teacher"
    (first, *_) = sorted(folder.glob("train-*.safetensors"))
    with safe_open(first, "pt") as file:
        shapes = {name: file.get_tensor(name).shape for name in ("rows", "ids", "logps")}
    assert shapes["rows"] == (12,)
    assert shapes["ids"][1] == 5 and shapes["logps"] == (shapes["ids"][0], 6)
    again = distill(cache_top_k=5, teacher_logits=str(folder))
    run = distill_run(tmp_path / "b")
    run.loads = None  # no teacher
    two, _ = run_stage(tmp_path / "b", loaded(model()), again, evals={"it": rows(3)}, run=run)
    assert logs_of(one) == logs_of(two)
    other = distill(cache_top_k=4, teacher_logits=str(folder))
    with pytest.raises(RecipeError, match="is of top_k 5, and this run of 4"):
        run_stage(tmp_path / "c", loaded(model()), other, evals={"it": rows(3)})
    with pytest.raises(RecipeError, match=r"holds no teacher.json"):
        run_stage(tmp_path / "c", loaded(model()), distill(cache_top_k=4, teacher_logits="no"))


def test_all_of_the_vocabulary_is_no_likeliest_part_of_it(tmp_path):
    with pytest.raises(RecipeError, match="is 128, and the models share 128 tokens"):
        run_stage(tmp_path, loaded(model()), distill(cache_top_k=VOCAB))
