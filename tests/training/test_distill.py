"""Distillation: its divergences beside TRL's and by hand, that it learns, and what should make no
difference."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_resume import no_pickle
from training_setup import (
    SIZE,
    VOCAB,
    a_run,
    loaded,
    logs_of,
    model,
    rows,
    tokenizer,
    use_scheduler,
)
from transformers import AutoModelForCausalLM, LlamaConfig

from tunewright import RecipeError
from tunewright.events import Notice
from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, TrainRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_distill import Distill
from tunewright_distill.losses import DIVERGENCES, likeliest, log_softmax, with_the_rest
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
