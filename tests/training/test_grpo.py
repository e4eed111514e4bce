"""GRPO: its numbers by hand, that it learns, and that what should make no difference makes none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from prompts_setup import own_rewards, prompts, prompts_run, run_stage, wanted
from test_pairs_training import weights
from test_resume import assert_same_state, no_pickle
from training_setup import loaded, logs_of, lora, model, stop_after

from tunewright import RecipeError, RunError
from tunewright.errors import Stopped
from tunewright.types import LoadedModel
from tunewright_grpo import Grpo
from tunewright_grpo.advantage import (
    centred,
    deviation,
    overlong_penalty,
    parts,
    scaled,
    token_weights,
)
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.models.modules import train_only
from tunewright_hf.training import online_rl as training

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")


def grpo(**options) -> Grpo:
    given = {"rewards": ["wanted"], "num_generations": 4, "max_new_tokens": 5, **options}
    return Grpo(Grpo.Options(**given), "grpo")


def adapted(how: str, dropout: float = 0.0) -> LoadedModel:
    if how == "lora":
        return lora(model(dropout=dropout), dropout)
    made = model(dropout=dropout)
    if how == "freeze":
        train_only(
            made,
            [name for name, _ in made.named_parameters() if name.startswith("model.layers.1.")],
        )
    return loaded(made)


# ---- numbers -------------------------------------------------------------------------------------


def test_advantages():
    rewards = torch.tensor([[0.0, 1.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    spread = np.sqrt((1 + 0 + 0 + 1) / 3) + 1e-4
    expected = [[-1 / spread, 0, 0, 1 / spread], [0, 0, 0, 0]]
    group = centred(rewards, "group")
    assert group.tolist() == [[-1, 0, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(scaled(group, rewards, "group", 0.0), expected)
    assert scaled(group, rewards, "none", 0.0) is group
    of_step = deviation(rewards.flatten(), lambda sums: sums)
    assert of_step == pytest.approx(rewards.std().item())
    np.testing.assert_allclose(
        scaled(group, rewards, "batch", of_step), group / (rewards.std() + 1e-4)
    )
    # minus the mean of the other three
    assert centred(rewards, "rloo")[0].tolist() == pytest.approx([-4 / 3, 0, 0, 4 / 3])
    assert torch.equal(centred(rewards, "reinforce_plus_plus"), rewards)


def test_deviation_over_ranks():
    parts_of_it = [torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.0, -3.0])]
    sums = []
    for part in parts_of_it:
        deviation(part, lambda own: sums.append(own) or own)
    found = [deviation(part, lambda _: sums[0] + sums[1]) for part in parts_of_it]
    assert found == pytest.approx([torch.cat(parts_of_it).std().item()] * 2)


def test_overlong_penalty():
    """None up to 6 of 10 tokens, and then a quarter more with each."""
    lengths = torch.tensor([1.0, 6.0, 7.0, 9.0, 10.0])
    assert overlong_penalty(lengths, 10, 4).tolist() == [0, 0, -0.25, -0.75, -1]


ADVANTAGES, TOKENS = np.array([1.0, -0.5, 2.0]), np.array([2, 4, 1])  # of three answers
MEANS = {
    "dapo": (2 * 1 - 4 * 0.5 + 1 * 2) / 7,
    "grpo": (1 - 0.5 + 2) / 3,
    "dr_grpo": (2 * 1 - 4 * 0.5 + 1 * 2) / (3 * 8),
}


@pytest.mark.parametrize("how", MEANS)
def test_averages(how):
    """Every token of an answer says the answer's advantage; 8 tokens are the longest answer."""
    tokens = torch.from_numpy(TOKENS).double()
    weighed = (token_weights(tokens, how, 8) * tokens * torch.from_numpy(ADVANTAGES)).sum()
    assert float(weighed) / parts(tokens, how) == pytest.approx(MEANS[how])


def one_step(folder: Path, monkeypatch, reference: LoadedModel | None = None, **options):
    """One step that changes no weight to speak of: the logged loss, the rollouts with their
    rewards, and the model."""
    seen = []
    answers = training.PromptsTrainer.answers

    def watched(self, *given):
        seen.append(answers(self, *given))
        return seen[-1]

    monkeypatch.setattr(training.PromptsTrainer, "answers", watched)
    made = loaded(model())
    run, _ = run_stage(
        folder, made, grpo(**options), reference=reference, learning_rate=1e-12, max_steps=1
    )
    return logs_of(run)[0], *seen[0], made.model


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("how", MEANS)
def test_loss_of_a_step(tmp_path, monkeypatch, how, masked):
    """The ratio is 1, so the loss is minus the mean of the advantages, however tokens are
    averaged."""
    with_end = {"rewards": ["short"], "max_new_tokens": 60}  # long enough for some to end
    with_end["rewards"] = [{"name": "short", "longest": 10}]
    logged, written, rewards, _ = one_step(
        tmp_path, monkeypatch, loss=how, mask_truncated=masked, **with_end
    )
    groups = rewards.view(-1, 4).numpy()
    worth = (
        (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)
    ).flatten()
    kept = np.array([answer.finished or not masked for answer in written])
    assert (0 < kept.sum() < len(kept)) == masked
    tokens = np.array([len(answer.completion_ids) for answer in written])[kept]
    expected = {
        "dapo": (worth[kept] * tokens).sum() / tokens.sum(),
        "grpo": worth[kept].mean(),
        "dr_grpo": (worth[kept] * tokens).sum() / (60 * len(tokens)),
    }
    assert logged["loss"] == pytest.approx(-expected[how], rel=1e-4, abs=1e-6)
    assert logged["reward"] == pytest.approx(rewards.mean().item())
    assert logged["reward_std"] == pytest.approx(groups.std(1, ddof=1).mean())
    assert logged["completions/clipped_ratio"] == pytest.approx(
        np.mean([not each.finished for each in written])
    )
    assert logged["grad_norm"] > 0


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_gradient_of_a_step(tmp_path, monkeypatch, beta):
    """Against transformers' own logits: the gradient of minus the mean of advantage ×
    log-probability, plus beta × KL divergence."""
    reference = model()
    with torch.no_grad():
        reference.lm_head.weight.mul_(
            -20
        )  # far off: then the KL divergence has a gradient of its own
    logged, written, rewards, made = one_step(
        tmp_path, monkeypatch, loaded(reference) if beta else None, beta=beta
    )
    made.zero_grad()
    groups = rewards.view(-1, 4)
    worth = (
        (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    ).flatten()
    total, kl = torch.zeros(()), []
    for answer, value in zip(written, worth, strict=True):
        ids = torch.tensor([answer.prompt_ids + answer.completion_ids])
        places = torch.arange(len(answer.prompt_ids), ids.shape[1])
        mine, other = (
            each(input_ids=ids).logits[0].log_softmax(-1)[places - 1, ids[0, places]]
            for each in (made, reference)
        )
        ratio = other.detach() - mine
        total = total + (-value * mine + beta * (ratio.exp() - ratio - 1)).sum()
        kl.append((ratio.exp() - ratio - 1).mean().item())
    (total / sum(len(answer.completion_ids) for answer in written)).backward()
    norm = torch.stack(
        [each.grad.norm() for each in made.parameters() if each.grad is not None]
    ).norm()
    assert logged["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    if beta:
        assert logged["kl"] == pytest.approx(np.mean(kl), rel=1e-4)


def test_weights_of_rewards_and_rows_of_which_one_says_nothing(tmp_path, monkeypatch):
    both = ["wanted", {"name": "in_the_row", "weight": 2}]
    logged, written, rewards, _ = one_step(tmp_path, monkeypatch, rewards=both)
    texts = [answer.text for answer in written]
    odd_rows = [(answer.prompt_ids[0] - 3) // 7 % 2 for answer in written]  # of prompts()
    assert 0 < sum(odd_rows) < len(odd_rows)
    other = [2 * float("1" in text) * odd for text, odd in zip(texts, odd_rows, strict=True)]
    first = wanted(texts)
    assert rewards.tolist() == pytest.approx(
        [one + two for one, two in zip(first, other, strict=True)]
    )
    assert logged["rewards/wanted"] == pytest.approx(np.mean(first))
    assert logged["rewards/in_the_row"] == pytest.approx(sum(other) / 2 / sum(odd_rows))


def test_an_answer_that_no_reward_speaks_of_ends_the_run(tmp_path):
    with pytest.raises(RunError, match="gives no number for some answer") as found:
        run_stage(tmp_path, loaded(model()), grpo(rewards=["silent"]))
    assert found.value.place == "reward silent"


# ---- it learns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "freeze", "lora"])
def test_reward_rises_and_only_what_it_is_to_train_moves(tmp_path, how):
    made = adapted(how)
    with torch.no_grad():
        made.model.get_output_embeddings().weight.mul_(
            10
        )  # else layers below the head have little say
    before = weights(made)
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    rate = {"full": 1e-2, "freeze": 3e-2, "lora": 5e-2}[how]
    run, result = run_stage(
        tmp_path, made, grpo(num_generations=8), max_steps=12, learning_rate=rate, logging_steps=3
    )
    rewards = [each["reward"] for each in logs_of(run)]
    assert rewards[0] < 0.65
    assert rewards[-1] > rewards[0] + 0.15
    assert {
        name for name, each in weights(made).items() if not torch.equal(each, before[name])
    } == trained
    assert (result.steps, result.tokens) == (12, logs_of(run)[-1]["tokens"])
    assert (result.path / f"{'adapter_' if how == 'lora' else ''}model.safetensors").exists()


# ---- what makes no difference --------------------------------------------------------------------


def test_four_passes_of_one_prompt_are_one_of_four(tmp_path):
    found = []
    for name, size in {"4x1": 1, "1x4": 4}.items():
        made = loaded(model())
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        run, _ = run_stage(tmp_path / name, made, grpo(beta=0.1), reference=loaded(model()), **how)
        found.append((logs_of(run), weights(made)))
    (one, one_weights), (four, four_weights) = found
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-4, atol=1e-5)


def test_evaluation_leaves_training_alone(tmp_path):
    evals = {"it": prompts(7), "seen": prompts(3)}
    made = [loaded(model()) for _ in range(3)]
    run, result = run_stage(
        tmp_path / "a", made[0], grpo(), evals=evals, eval_steps=1, per_device_eval_batch_size=2
    )
    _, other = run_stage(
        tmp_path / "b", made[1], grpo(), evals=evals, eval_steps=4, per_device_eval_batch_size=7
    )
    alone, _ = run_stage(tmp_path / "c", made[2], grpo())
    assert logs_of(run) == logs_of(alone)
    assert all(torch.equal(each, weights(made[2])[name]) for name, each in weights(made[0]).items())
    assert result.metrics["it_loss"] == -result.metrics["it_reward"]
    assert result.metrics == pytest.approx(other.metrics)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_resumed_equals_uninterrupted(tmp_path, how):
    settings = {
        "evals": {"it": prompts(3)},
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    settings |= {"max_steps": 6, "logging_steps": 2, "save_total_limit": 100}

    def train(folder, **others):
        made, reference = adapted(how, 0.2), adapted(how)
        return run_stage(
            tmp_path / folder, made, grpo(beta=0.1), reference=reference, **others, **settings
        )[0]

    whole = train("whole", save_steps=6)
    first = prompts_run(tmp_path / "parts")
    with pytest.raises(Stopped):
        train("parts", stop=stop_after(4), run=first)
    second = train(
        "parts", checkpoint=latest_checkpoint(tmp_path / "parts" / "checkpoints"), save_steps=6
    )
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-6" for name in ("whole", "parts")))


# ---- the reference -------------------------------------------------------------------------------


def test_a_second_model_and_the_model_below_a_new_adapter_are_the_same_reference(tmp_path):
    base, start = grpo(beta=0.5, reference="base"), grpo(beta=0.5)
    assert (base.models, start.models, grpo().models) == (
        ("policy",),
        ("policy", "reference"),
        ("policy",),
    )
    one, _ = run_stage(tmp_path / "a", adapted("lora"), base)
    two, _ = run_stage(tmp_path / "b", adapted("lora"), start, reference=adapted("lora"))
    assert logs_of(one) == logs_of(two)
    assert logs_of(one)[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert logs_of(one)[-1]["kl"] > 1e-4


def test_more_beta_stays_closer(tmp_path):
    found = {}
    for beta in (0.01, 10.0):
        run, _ = run_stage(
            tmp_path / str(beta),
            loaded(model()),
            grpo(beta=beta),
            reference=loaded(model()),
            max_steps=8,
        )
        found[beta] = logs_of(run)[-1]["kl"]
    assert 0 < found[10.0] < found[0.01] / 2


def test_what_does_not_fit_is_refused_at_once(tmp_path):
    with pytest.raises(RecipeError, match="no adapter to leave out"):
        run_stage(tmp_path, loaded(model()), grpo(beta=0.1, reference="base"))
    with pytest.raises(RecipeError, match="answers are not written yet"):
        run_stage(tmp_path, loaded(model()), grpo(), batching="token_budget", tokens_per_batch=64)
    with pytest.raises(ValueError, match="no installed plugin gives the reward 'wantd'"):
        grpo(rewards=["wantd"])
    with pytest.raises(ValueError, match="is '2', not a number"):
        grpo(rewards=[{"name": "wanted", "weight": "2"}])
