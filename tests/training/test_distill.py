"""Distillation: its divergences beside TRL's and by hand, that it learns, and what should make no
difference."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from test_grpo import adapted
from test_pairs_training import weights
from test_resume import assert_same_state, no_pickle
from training_setup import (
    SIZE,
    VOCAB,
    a_run,
    loaded,
    logs_of,
    model,
    rows,
    stop_after,
    tokenizer,
    use_scheduler,
)
from transformers import AutoModelForCausalLM, LlamaConfig

from tunewright import RecipeError
from tunewright.errors import Stopped
from tunewright.events import Notice
from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, TrainRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_distill import Distill
from tunewright_distill.losses import DIVERGENCES, likeliest, log_softmax, with_the_rest
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.losses import chunked_cross_entropy

__all__ = ["no_pickle"]  # a fixture
TEACHER = "some/teacher"


def distill(**options: Any) -> Distill:
    return Distill(Distill.Options(**{"teacher": TEACHER, **options}), "distill")


def teacher(sharp: float = 20.0, vocab: int = VOCAB) -> LoadedModel:
    """Another architecture than the student, with distributions that are far from even."""
    torch.manual_seed(5)
    size = SIZE | {"hidden_size": 48, "num_hidden_layers": 3, "vocab_size": vocab}
    made = AutoModelForCausalLM.from_config(LlamaConfig(**size), attn_implementation="eager")
    with torch.no_grad():
        made.lm_head.weight.mul_(sharp)
    return LoadedModel(model=made.requires_grad_(False), tokenizer=tokenizer())


def distill_run(folder: Path, **facts: Any) -> FakeRun:
    template = SimpleNamespace(info=SimpleNamespace(stop=()), chat_template=lambda: None)
    return a_run(folder, plugins={"template": template}, loads=lambda **_: teacher(), **facts)


def run_stage(
    folder: Path,
    made: LoadedModel,
    stage: Distill,
    data: Any = None,
    *,
    evals: Any = None,
    stop: Any = lambda run: False,
    checkpoint: Any = None,
    run: FakeRun | None = None,
    **training: Any,
) -> tuple[FakeRun, Any]:
    run = run or distill_run(folder)
    settings = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "max_steps": 4,
        "lr_scheduler_type": "constant",
        "precision": "fp32",
        "batching": "random",
        "max_length": 64,
    }
    request = TrainRequest(
        made,
        Data(train=data if data is not None else rows(12), evals=evals or {}, fingerprint="x"),
        Training(**{**settings, **training}),
        folder,
        checkpoint=checkpoint,
        stop_requested=lambda: stop(run),
    )
    use_scheduler(run, request.training)
    return run, stage.train_stage(run, request)


# ---- numbers -------------------------------------------------------------------------------------

BETAS = {"forward_kl": 0.0, "reverse_kl": 1.0, "js": 0.3}


def some_logits() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(3)
    one, other = (3 * torch.randn(5, 11, generator=made) for _ in range(2))
    return one, other


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergences_are_those_of_trl(name, temperature):
    gkd = pytest.importorskip("trl.experimental.gkd", reason="TRL is the reference")
    student, teacher_logits = some_logits()
    mine = student.clone().requires_grad_()
    found = DIVERGENCES[name](
        log_softmax(teacher_logits, temperature), log_softmax(mine, temperature), 0.3
    )
    theirs = student.clone().requires_grad_()
    expected = gkd.GKDTrainer.generalized_jsd_loss(
        theirs[None],
        teacher_logits[None],
        beta=BETAS[name],
        temperature=temperature,
        reduction="none",
    )[0].sum(-1)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_divergences_by_hand():
    teacher_logps, student = (torch.tensor([each]).log() for each in ([0.5, 0.5], [0.9, 0.1]))
    forward = 0.5 * (0.5 / 0.9 * torch.ones(())).log() + 0.5 * (0.5 / 0.1 * torch.ones(())).log()
    torch.testing.assert_close(DIVERGENCES["forward_kl"](teacher_logps, student, 0.5)[0], forward)
    for name in ("forward_kl", "js"):
        # tokens that cannot be, such as those beyond the vocabulary
        cannot = torch.tensor([[0.0, 0.0, -torch.inf]])
        same = log_softmax(cannot, 1.0)
        assert DIVERGENCES[name](same, same, 0.5).tolist() == pytest.approx([0.0])


def test_the_likeliest_tokens_and_the_rest():
    student, teacher_logits = (log_softmax(each, 1.0) for each in some_logits())
    ids, kept = likeliest(teacher_logits, 3)
    assert ids.shape == (5, 3) and kept.shape == (5, 4)
    torch.testing.assert_close(kept.exp().sum(1), torch.ones(5))
    torch.testing.assert_close(with_the_rest(teacher_logits, ids), kept)
    whole = DIVERGENCES["forward_kl"](teacher_logits, student, 0.5)
    found = DIVERGENCES["forward_kl"](kept, with_the_rest(student, ids), 0.5)
    assert (found >= 0).all() and (found <= whole + 1e-6).all()  # merging loses information
    ids, kept = likeliest(teacher_logits, 10)  # all but one token: nothing is merged
    torch.testing.assert_close(
        DIVERGENCES["forward_kl"](kept, with_the_rest(student, ids), 0.5), whole
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_loss_and_gradient_of_a_step(tmp_path, monkeypatch, name):
    """Against the models' own logits, in chunks of 7 positions; the teacher's head has more rows
    than the student's."""
    monkeypatch.setattr(chunked_cross_entropy, "_chunk", lambda vocab, device: 7)
    made, data, wide = model(), rows(4, weighted=True), teacher(vocab=VOCAB + 8)
    run = distill_run(tmp_path)
    run.loads = lambda **_: wide
    options = {"beta": 0.3} if name == "js" else {}
    stage = distill(divergence=name, divergence_temperature=2.0, nll_weight=0.5, **options)
    run, _ = run_stage(
        tmp_path, loaded(made), stage, data, run=run, learning_rate=1e-12, max_steps=1
    )
    made.zero_grad()
    total, count = torch.zeros(()), 0.0
    for row in data:
        ids = torch.tensor([row["input_ids"]])
        places = [place for place in range(1, ids.shape[1]) if row["labels"][place] != -100]
        before = torch.tensor(places) - 1
        mine = made(input_ids=ids).logits[0, before]
        theirs = wide.model(input_ids=ids).logits[0, before, :VOCAB]
        value = DIVERGENCES[name](log_softmax(theirs, 2.0), log_softmax(mine, 2.0), 0.3)
        nll = -mine.log_softmax(-1)[range(len(places)), ids[0, places]]
        weight = torch.tensor(row["loss_weights"] or [1.0] * ids.shape[1])[places]
        total, count = total + ((value + 0.5 * nll) * weight).sum(), count + float(weight.sum())
    (total / count).backward()
    norm = torch.stack([each.grad.norm() for each in made.parameters() if each.grad is not None])
    logged = logs_of(run)[0]
    assert logged["loss"] == pytest.approx(total.item() / count, rel=1e-4)
    assert logged["grad_norm"] == pytest.approx(norm.norm().item(), rel=1e-4)


# ---- what a recipe may ask -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"beta": 0.3}, "beta does nothing for the divergence forward_kl"),
        ({"max_new_tokens": 9}, "max_new_tokens does nothing without lmbda"),
        ({"lmbda": 0.5, "cache_top_k": 4}, "does not go with lmbda"),
        ({"lmbda": 0.5, "nll_weight": 1.0}, "does not go with lmbda"),
        ({"teacher_logits": "x"}, "teacher_logits needs the cache_top_k"),
        (
            {"teacher_logits": "x", "cache_top_k": 4, "teacher_quantizer": "bitsandbytes"},
            "teacher_quantizer does nothing",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        distill(**options)


def of_a_checkpoint(folder: Path, other: LoadedModel) -> FakeRun:
    run = distill_run(folder)
    run.recipe = run.recipe.model_copy(update={"model": "some/model"})
    run.loads = lambda **_: other
    return run


def test_a_teacher_with_another_tokenizer_is_refused(tmp_path):
    other = teacher()
    other.tokenizer.add_tokens(["ab"])
    with pytest.raises(RecipeError) as found:
        run_stage(tmp_path, loaded(model()), distill(), run=of_a_checkpoint(tmp_path, other))
    said = str(found.value)
    assert "\n" not in said
    assert (
        "stage.teacher: some/teacher has another tokenizer: 'ab' is 128 there and missing here"
        in said
    )


def test_a_tiny_model_has_a_tiny_teacher(tmp_path):
    """As in a --smoke run, whose model has a tokenizer of its own."""
    run, _ = run_stage(tmp_path, loaded(model()), distill(), max_steps=1)
    said = [event.message for event in run.events if isinstance(event, Notice)]
    assert any("a tiny model is the teacher in place of some/teacher" in each for each in said)


# ---- it learns -----------------------------------------------------------------------------------


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
