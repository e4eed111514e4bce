"""Online DPO: its numbers by hand, that it learns, and that what should make no difference makes
none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prompts_setup import (
    REWARDS,
    Named,
    one_by_one_and_at_once,
    own_rewards,
    prompts,
    prompts_run,
    run_stage,
    wanted,
)
from test_grpo import adapted
from test_pairs_training import weights
from test_resume import assert_same_state, no_pickle
from training_setup import loaded, logs_of, model, stop_after

from tunewright.errors import Stopped
from tunewright.types import LoadedModel
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.training import online_rl
from tunewright_online_dpo import OnlineDpo
from tunewright_online_dpo.losses import LOSSES

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")


def online_dpo(**options: Any) -> OnlineDpo:
    given = {"rewards": ["wanted"], "max_new_tokens": 5, **options}
    return OnlineDpo(OnlineDpo.Options(**given), "online_dpo")


def far_off() -> Any:
    """A reference with other preferences than the policy."""
    made = model()
    with torch.no_grad():
        made.lm_head.weight.mul_(-20)
    return made


# ---- numbers -------------------------------------------------------------------------------------


def test_losses_by_hand():
    margins = torch.tensor([0.0, 2.0, -4.0])
    sigmoid = [np.log(2), np.log1p(np.exp(-1)), np.log1p(np.exp(2))]
    assert LOSSES["sigmoid"](margins, 0.5).tolist() == pytest.approx(sigmoid)
    assert LOSSES["ipo"](margins, 0.5).tolist() == pytest.approx([1.0, 1.0, 25.0])


def one_step(folder: Path, monkeypatch: Any, **options: Any) -> tuple[dict[str, float], Any, Any]:
    """The log of one step that changes no weight to speak of, completions with their rewards, and
    the model with the gradients of the step."""
    seen: list[Any] = []
    answers = online_rl.PromptsTrainer.answers

    def watched(self: Any, *given: Any) -> Any:
        seen.append(answers(self, *given))
        return seen[-1]

    monkeypatch.setattr(online_rl.PromptsTrainer, "answers", watched)
    made = loaded(model())
    run, _ = run_stage(
        folder,
        made,
        online_dpo(**options),
        reference=loaded(far_off()),
        learning_rate=1e-12,
        max_steps=1,
        max_grad_norm=0,
    )
    return logs_of(run)[0], seen[0], made.model


def log_ratios(made: Any, written: Any) -> torch.Tensor:
    """Summed log-probabilities (N,) from transformers' own logits minus those of the reference."""
    found, other = [], far_off()
    for answer in written:
        ids = torch.tensor([answer.prompt_ids + answer.completion_ids])
        places = torch.arange(len(answer.prompt_ids), ids.shape[1])
        mine, theirs = (
            each(input_ids=ids).logits[0].log_softmax(-1)[places - 1, ids[0, places]].sum()
            for each in (made, other)
        )
        found.append(mine - theirs.detach())
    return torch.stack(found)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_by_hand(tmp_path, monkeypatch, loss):
    """Loss, gradient and metrics, from plain logits. Some pairs are equal, and do not count."""
    monkeypatch.setitem(REWARDS, "coarse", type("coarse", (Named,), {"function": coarse}))
    logged, (written, rewards), made = one_step(
        tmp_path, monkeypatch, loss=loss, beta=0.3, rewards=["coarse"]
    )
    made.zero_grad()
    pairs = rewards.view(-1, 2).tolist()
    ratios = log_ratios(made, written).view(-1, 2)
    margins, chosen = [], []
    for pair, (first, second) in zip(ratios, pairs, strict=True):
        if first != second:
            best = int(second > first)
            margins.append(pair[best] - pair[1 - best])
            chosen.append(0.3 * pair[best].item())
    assert 0 < len(margins) < len(pairs)
    margin = torch.stack(margins)
    losses = (margin - 1 / 0.6) ** 2 if loss == "ipo" else (1 + (-0.3 * margin).exp()).log()
    losses.mean().backward()
    assert logged["loss"] == pytest.approx(losses.mean().item(), rel=1e-4)
    norm = torch.stack([each.grad.norm() for each in made.parameters() if each.grad is not None])
    assert logged["grad_norm"] == pytest.approx(norm.norm().item(), rel=1e-4)
    assert logged["groups/alike"] == 1 - len(margins) / len(pairs)
    assert logged["reward_margin"] == pytest.approx(np.mean([abs(a - b) for a, b in pairs]))
    assert logged["rewards/chosen"] == pytest.approx(np.mean(chosen), rel=1e-4)
    assert logged["rewards/margins"] == pytest.approx(0.3 * margin.mean().item(), rel=1e-4)
    accuracy = (margin > 0).float().mean().item()
    assert logged["rewards/accuracies"] == pytest.approx(accuracy)
    tokens = torch.tensor([len(answer.completion_ids) for answer in written])
    kl = (ratios.flatten() / tokens).mean().item()
    assert logged["kl"] == pytest.approx(kl, rel=1e-4)


@staticmethod
def coarse(completions: list[str], **_: Any) -> list[float]:
    """Rewards of which many are equal."""
    return [float(share > 0.5) for share in wanted(completions)]


def test_pairs_that_are_all_alike_train_nothing(tmp_path, monkeypatch):
    logged, _, _ = one_step(tmp_path, monkeypatch, rewards=["same"])
    assert (logged["loss"], logged["grad_norm"], logged["groups/alike"]) == (0, 0, 1)


def test_completions_without_an_end_cost_the_penalty(tmp_path, monkeypatch):
    both = {"rewards": ["same"], "max_new_tokens": 60}  # long enough for some to end
    logged, (written, rewards), _ = one_step(tmp_path, monkeypatch, missing_eos_penalty=2.0, **both)
    cut = np.array([not answer.finished for answer in written])
    assert 0 < cut.sum() < len(cut)
    np.testing.assert_allclose(rewards, 0.5 - 2.0 * cut)
    assert logged["rewards/missing_eos"] == pytest.approx(-2.0 * cut.mean())
    assert 0 < logged["groups/alike"] < 1  # pairs of which only one ends are trained on


# ---- it learns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_reward_rises_and_the_reversed_one_falls(tmp_path, loss, sign):
    """The share of wanted words, where that is the reward or minus the reward."""
    rewards = [{"name": "wanted", "weight": sign}]
    run, result = run_stage(
        tmp_path,
        loaded(model()),
        online_dpo(rewards=rewards, loss=loss),
        prompts(32),
        reference=loaded(model()),
        max_steps=16,
        learning_rate=3e-2,
        logging_steps=4,
        per_device_train_batch_size=16,
    )
    found = [each["rewards/wanted"] for each in logs_of(run)]
    assert 0.35 < found[0] < 0.65
    assert sign * (found[-1] - found[0]) > 0.3
    assert (result.steps, result.tokens) == (16, logs_of(run)[-1]["tokens"])


@pytest.mark.parametrize("how", ["full", "freeze", "lora"])
def test_only_what_it_is_to_train_moves(tmp_path, how):
    made = adapted(how)
    before = weights(made)
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    _, result = run_stage(tmp_path, made, online_dpo(), reference=adapted(how), max_steps=2)
    moved = {name for name, each in weights(made).items() if not torch.equal(each, before[name])}
    assert moved == trained
    assert (result.path / f"{'adapter_' if how == 'lora' else ''}model.safetensors").exists()


# ---- what makes no difference --------------------------------------------------------------------


def test_four_passes_of_one_prompt_are_one_of_four(tmp_path):
    (one, one_weights), (four, four_weights) = one_by_one_and_at_once(tmp_path, online_dpo())
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-4, atol=1e-5)


def test_the_model_below_a_new_adapter_is_the_same_reference_as_a_second_model(tmp_path):
    base, start = online_dpo(reference="base"), online_dpo()
    assert (base.models, start.models) == (("policy",), ("policy", "reference"))
    one, _ = run_stage(tmp_path / "a", adapted("lora"), base)
    two, _ = run_stage(tmp_path / "b", adapted("lora"), start, reference=adapted("lora"))
    assert logs_of(one) == logs_of(two)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_resumed_equals_uninterrupted(tmp_path, how):
    settings = {
        "evals": {"it": prompts(3)},
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "logging_steps": 2,
        "save_total_limit": 100,
    }

    def train(folder: str, **others: Any) -> Any:
        made, reference = adapted(how, 0.2), adapted(how)
        stage = online_dpo(missing_eos_penalty=0.5)
        return run_stage(tmp_path / folder, made, stage, reference=reference, **others, **settings)

    whole, _ = train("whole", save_steps=6)
    first = prompts_run(tmp_path / "parts", loads=lambda **_: adapted(how))
    with pytest.raises(Stopped):
        train("parts", stop=stop_after(4), run=first)
    checkpoint = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    second, _ = train("parts", checkpoint=checkpoint, save_steps=6)
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-6" for name in ("whole", "parts")))


def test_evaluation_leaves_training_alone(tmp_path):
    made: list[LoadedModel] = [loaded(model()) for _ in range(2)]
    more = {"evals": {"it": prompts(7)}, "eval_steps": 1, "per_device_eval_batch_size": 2}
    references = [loaded(model()) for _ in range(2)]
    one, result = run_stage(tmp_path / "a", made[0], online_dpo(), reference=references[0], **more)
    alone, _ = run_stage(tmp_path / "b", made[1], online_dpo(), reference=references[1])
    assert logs_of(one) == logs_of(alone)
    assert all(torch.equal(each, weights(made[1])[name]) for name, each in weights(made[0]).items())
    assert result.metrics["it_loss"] == -result.metrics["it_reward"]


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"beta": 0}, "beta"),
        ({"missing_eos_penalty": -1}, "missing_eos_penalty"),
        ({"loss": "hinge"}, "'sigmoid' or 'ipo'"),
        ({"rewards": []}, "rewards"),
        ({"num_generations": 4}, "num_generations"),
        ({"rollouts": {}}, "expected the name of an engine"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        online_dpo(**options)
