"""GRPO: its numbers by hand, that it learns, and that what should make no difference makes none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from prompts_setup import own_rewards, run_stage, wanted
from test_resume import no_pickle
from training_setup import loaded, logs_of, lora, model

from tunewright import RunError
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
