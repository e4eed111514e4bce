"""Losses, advantages and sampling that followed GRPO: beside TRL's on the same rows, by hand, and
what should make no difference."""

from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from prompts_setup import REWARDS, Named, own_rewards, prompts, prompts_run, run_stage, wanted
from test_grpo import adapted, grpo
from test_pairs_training import weights
from test_resume import assert_same_state, no_pickle
from torch.nn.utils.rnn import pad_sequence
from training_setup import loaded, logs_of, model, stop_after, tokenizer

from tunewright.errors import Stopped
from tunewright_grpo.advantage import parts, token_weights
from tunewright_grpo.losses import policy_loss
from tunewright_grpo.training import GrpoTrainer
from tunewright_hf.batching.collators import Padded
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint
from tunewright_hf.losses.causal_lm import CausalLoss, shift

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")
LONGEST = 7
#: name → our options, TRL's
LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"loss": "grpo"}, {"loss_type": "grpo"}),
    "dapo, clip-higher": (
        {"loss": "dapo", "epsilon": 0.1, "epsilon_high": 0.28},
        {"loss_type": "dapo", "epsilon": 0.1, "epsilon_high": 0.28},
    ),
    "dr_grpo, two-sided": (
        {"loss": "dr_grpo", "delta": 1.4},
        {"loss_type": "dr_grpo", "delta": 1.4},
    ),
    "gspo": (
        {"loss": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.02},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.02},
    ),
    "cispo": (
        {"loss": "cispo", "epsilon_high": 1.2},
        {"loss_type": "cispo", "epsilon_high": 1.2},
    ),
    "sapo": (
        {"loss": "sapo", "sapo_temperature_neg": 1.5},
        {"loss_type": "sapo", "sapo_temperature_neg": 1.5},
    ),
    "divergence": (
        {"loss": "dapo", "beta": 0.3},
        {"loss_type": "dapo", "beta": 0.3, "use_bias_correction_kl": False},
    ),
    "unbiased divergence": (
        {"loss": "dapo", "beta": 0.3, "unbiased_kl": True},
        {"loss_type": "dapo", "beta": 0.3},
    ),
    "entropy": (
        {"loss": "dapo", "entropy_weight": 0.2},
        {"loss_type": "dapo", "entropy_coef": 0.2},
    ),
}


# ---- losses --------------------------------------------------------------------------------------


def some_rows() -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Prompts of 1 to 3 tokens with completions of 2 to 7, and their advantages."""
    made, rows = torch.Generator().manual_seed(1), []
    for number in range(6):
        ids = torch.randint(3, 128, (1 + number % 3 + 2 + number,), generator=made).tolist()
        prompt = 1 + number % 3
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows, torch.tensor([1.0, -0.5, 2.0, -1.0, 0.3, -2.0])


def our_batch(rows: Any, advantages: torch.Tensor, how: str) -> dict[str, Any]:
    batch = Padded(0)(rows)
    known = shift(batch["labels"], None)[1]
    lengths, made = known.sum(1), torch.Generator().manual_seed(2)
    with torch.no_grad():
        sampler = model()
        logps = CausalLoss(sampler).logps(sampler, batch["inputs"], batch["labels"])[0]
    # far enough from the policy for some tokens to be clipped
    for name in ("old", "reference"):
        batch[name] = (logps + 0.4 * torch.randn(logps.shape, generator=made)) * known
    batch |= {"known": known, "advantages": advantages[:, None] * known}
    batch["weights"] = token_weights(lengths, how, LONGEST)
    batch["parts"] = parts(lengths, how)
    return batch


def gradient(made: Any) -> torch.Tensor:
    return torch.cat([each.grad.flatten() for each in made.parameters() if each.grad is not None])


def ours(options: dict[str, Any]) -> tuple[float, torch.Tensor, dict[str, float]]:
    """Loss, gradient, and metrics."""
    stage = grpo(num_iterations=2, max_new_tokens=LONGEST, **options).options
    rows, advantages = some_rows()
    made, counted = model(), {}
    batch = our_batch(rows, advantages, stage.loss)
    self: Any = SimpleNamespace(
        options=stage,
        causal_loss=CausalLoss(made),
        count=lambda name, values: counted.update({name: float(values.mean())}),
    )
    self._count_kl = lambda *given: GrpoTrainer._count_kl(self, *given)
    loss = GrpoTrainer.compute_loss(self, made, batch, 1 / batch["parts"])
    loss.backward()
    return loss.item(), gradient(made), counted


def their_inputs(batch: dict[str, Any], rows: Any, advantages: torch.Tensor) -> dict[str, Any]:
    """The same in TRL's form: prompts padded on the left, completions on the right."""
    sizes = [row["labels"].count(-100) for row in rows]

    def right(columns: Any) -> torch.Tensor:
        return pad_sequence([torch.tensor(each) for each in columns], batch_first=True)

    found = {
        "prompt_ids": right(
            [row["input_ids"][:size][::-1] for row, size in zip(rows, sizes, strict=True)]
        ).flip(1),
        "completion_ids": right(
            [row["input_ids"][size:] for row, size in zip(rows, sizes, strict=True)]
        ),
    }
    found["prompt_mask"] = (found["prompt_ids"] > 0).long()
    found["completion_mask"] = (found["completion_ids"] > 0).long()
    for name, theirs in (("old", "old_per_token_logps"), ("reference", "ref_per_token_logps")):
        found[theirs] = pad_sequence(
            [batch[name][row][batch["known"][row] > 0] for row in range(len(rows))],
            batch_first=True,
        )
    return found | {
        "advantages": advantages,
        "num_items_in_batch": found["completion_mask"].sum(),
    }


def their_trainer(kind: str, folder: Any, *, beta: float = 0.0, **config: Any) -> Any:
    trl = pytest.importorskip("trl", reason="TRL is the reference")
    own, settings = getattr(trl, f"{kind}Trainer"), getattr(trl, f"{kind}Config")
    arguments = settings(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=6,
        num_generations=6,
        max_completion_length=LONGEST,
        steps_per_generation=1,
        num_iterations=2,
        beta=0.0,
        **config,
    )
    trainer = own(
        model(),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"prompt": "w3"}] * 6),
        processing_class=tokenizer(),
    )
    trainer.beta = beta  # set here: else it loads a reference, of which the rows have the numbers
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_those_of_trl(tmp_path, name):
    own, theirs = LOSSES[name]
    found, grad, counted = ours(own)
    rows, advantages = some_rows()
    batch = our_batch(rows, advantages, "dapo")
    trainer = their_trainer("GRPO", tmp_path, **theirs)
    loss = trainer._compute_loss(trainer.model, their_inputs(batch, rows, advantages))
    loss.backward()
    assert found == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(grad, gradient(trainer.model), rtol=1e-3, atol=1e-6)
    metrics = {key: values[-1] for key, values in trainer._metrics["train"].items() if values}
    if name == "entropy":
        assert counted["entropy"] == pytest.approx(metrics["entropy"], rel=1e-4)
    if name in ("dapo, clip-higher", "grpo"):
        assert 0 < counted["clip_ratio/low"] == pytest.approx(metrics["clip_ratio/low_mean"])
        assert 0 < counted["clip_ratio/high"] == pytest.approx(metrics["clip_ratio/high_mean"])
    if name == "cispo":
        assert 0 < counted["clip_ratio/high"] == pytest.approx(metrics["cispo_clip_ratio"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_gradient_of_rloo_is_that_of_trl(tmp_path):
    """On new completions. TRL sums over tokens where dr_grpo divides by max_new_tokens."""
    rows, advantages = some_rows()
    batch = our_batch(rows, advantages, "dr_grpo")
    made = model()
    self: Any = SimpleNamespace(
        options=grpo(max_new_tokens=LONGEST, loss="dr_grpo", advantage="rloo").options,
        causal_loss=CausalLoss(made),
    )
    GrpoTrainer.compute_loss(self, made, batch, 1 / batch["parts"]).backward()
    trainer = their_trainer("RLOO", tmp_path)
    inputs = their_inputs(batch, rows, advantages)
    with torch.no_grad():
        logps = CausalLoss(trainer.model).logps(trainer.model, batch["inputs"], batch["labels"])[0]
    inputs["old_logps"] = logps.sum(1)
    trainer._compute_loss(trainer.model, inputs).backward()
    torch.testing.assert_close(
        LONGEST * gradient(made), gradient(trainer.model), rtol=1e-3, atol=1e-6
    )


def test_losses_by_hand():
    ratios = torch.tensor([1.5, 1.5, 0.5, 3.0])
    advantages = torch.tensor([1.0, -1.0, -1.0, -2.0])
    logps = torch.full((4,), -0.5)

    def of(**options: Any) -> list[float]:
        given = grpo(num_iterations=2, **options).options
        return policy_loss(ratios, logps, advantages, given)[0].tolist()

    assert of(loss="grpo") == pytest.approx([-1.2, 1.5, 0.8, 6.0])
    assert of(loss="dapo", epsilon_high=0.3, delta=2.0) == pytest.approx([-1.3, 1.5, 0.8, 4.0])
    assert of(loss="cispo", epsilon_high=2.0) == pytest.approx([0.75, -0.75, -0.25, -2.0])
    gate = 4 / (1 + np.exp(-0.5))
    assert of(loss="sapo")[0] == pytest.approx(-gate)


# ---- options that mean nothing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"epsilon": 0.2}, "epsilon does nothing with num_iterations: 1"),
        ({"loss": "cispo"}, "the loss cispo does nothing with num_iterations: 1"),
        ({"importance_sampling_level": "sequence", "loss": "grpo"}, "sequence does nothing with"),
        (
            {"num_iterations": 2, "loss": "sapo", "epsilon": 0.2},
            "epsilon does nothing for the loss",
        ),
        ({"num_iterations": 2, "sapo_temperature_pos": 2.0}, "it is for sapo"),
        ({"num_iterations": 2, "importance_sampling_level": "sequence"}, "losses grpo and sapo"),
        ({"num_iterations": 2, "delta": 1.1}, "delta must be above 1 \\+ epsilon_high, .* 1.2"),
        ({"num_iterations": 2, "loss": "cispo", "epsilon_high": 0.2}, "expected 1 or more"),
        ({"num_generations": 1}, "num_generations: expected 2 or more"),
        (
            {"num_generations": 1, "advantage": "reinforce_plus_plus", "dynamic_sampling": 1},
            "dynamic_sampling compares",
        ),
        (
            {"advantage": "reinforce_plus_plus", "scale_rewards": "group"},
            "scale_rewards does nothing",
        ),
        ({"kl_in_reward": True}, "kl_in_reward needs a beta"),
        ({"unbiased_kl": True}, "unbiased_kl needs a beta"),
        (
            {"unbiased_kl": True, "beta": 0.1, "kl_in_reward": True},
            "unbiased_kl does nothing with kl_in_reward",
        ),
        ({"overlong_buffer": 6}, "more than max_new_tokens, 5"),
        ({"overlong_penalty": 1.0}, "does nothing without overlong_buffer"),
        ({"reference": "base"}, "reference does nothing without beta"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        grpo(**options)


# ---- advantages ----------------------------------------------------------------------------------


def first_rollout(folder, monkeypatch, **options: Any) -> tuple[list[Any], list[Any], Any]:
    """The batches of the first step, its completions with their rewards, and its log."""
    seen, asked = [], []
    make, answers = GrpoTrainer.make_rollout, GrpoTrainer.answers

    def made(self: Any, batches: Any) -> Any:
        seen.append([dict(batch) for batch in make(self, batches)])
        return [dict(batch) for batch in seen[-1]]

    def answered(self: Any, *given: Any) -> Any:
        asked.append(answers(self, *given))
        return asked[-1]

    monkeypatch.setattr(GrpoTrainer, "make_rollout", made)
    monkeypatch.setattr(GrpoTrainer, "answers", answered)
    reference = model()
    with torch.no_grad():
        reference.lm_head.weight.mul_(-20)
    run, _ = run_stage(
        folder,
        loaded(model()),
        grpo(**options),
        reference=loaded(reference),
        learning_rate=1e-12,
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    return seen[0], asked, logs_of(run)[0]


@pytest.mark.parametrize(
    "advantage", ["rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"]
)
def test_advantages_with_the_divergence_in_the_rewards(tmp_path, monkeypatch, advantage):
    """Over two passes of a step, by plain sums."""
    batches, asked, log = first_rollout(
        tmp_path, monkeypatch, advantage=advantage, beta=0.1, kl_in_reward=True, num_generations=3
    )
    expected, found, divergences = [], [], []
    for batch, (_, rewards) in zip(batches, asked, strict=True):
        known = batch["known"] > 0
        kl = (batch["old"] - batch["reference"]).double()
        per_row = torch.stack([row[mask].sum() for row, mask in zip(kl, known, strict=True)])
        divergences += [row[mask].mean().item() for row, mask in zip(kl, known, strict=True)]
        shaped = (rewards - 0.1 * per_row).view(-1, 3)
        others = (shaped.sum(1, keepdim=True) - shaped) / 2
        baseline = {"rloo": others, "reinforce_plus_plus_baseline": shaped.mean(1, keepdim=True)}
        for row, mask in enumerate(known):
            places = mask.nonzero().flatten().tolist()
            if advantage == "reinforce_plus_plus":
                value = [
                    rewards[row].item() - 0.1 * kl[row, place : places[-1] + 1].sum().item()
                    for place in places
                ]
            else:
                value = [(shaped - baseline[advantage]).flatten()[row].item()] * len(places)
            expected += value
            found += batch["advantages"][row][mask].tolist()
    wanted_values = np.array(expected)
    if advantage != "rloo":
        wanted_values = (wanted_values - wanted_values.mean()) / wanted_values.std()
    np.testing.assert_allclose(found, wanted_values, rtol=1e-3, atol=1e-4)
    assert log["kl"] == pytest.approx(np.mean(divergences), rel=1e-3)


def test_rewards_scaled_over_the_step(tmp_path, monkeypatch):
    batches, asked, _ = first_rollout(tmp_path, monkeypatch, scale_rewards="batch")
    every = torch.cat([rewards for _, rewards in asked])
    for batch, (_, rewards) in zip(batches, asked, strict=True):
        groups = rewards.view(-1, 4)
        value = (groups - groups.mean(1, keepdim=True)) / (every.std() + 1e-4)
        torch.testing.assert_close(
            batch["advantages"].double(),
            value.flatten()[:, None] * batch["known"],
            rtol=1e-5,
            atol=1e-6,
        )


# ---- sampling and shaping ------------------------------------------------------------------------


def of_some(completions: list[str], *, good: list[str], **_: Any) -> list[float]:
    """The rows of prompts() that say which digit is good; the others are all alike."""
    found = wanted(completions)
    return [0.0 if digit is None else each for each, digit in zip(found, good, strict=True)]


def test_groups_that_are_all_alike_are_replaced(tmp_path, monkeypatch):
    some = type("of_some", (Named,), {"function": staticmethod(of_some)})
    monkeypatch.setitem(REWARDS, "of_some", some)
    batches, asked, log = first_rollout(
        tmp_path, monkeypatch, rewards=["of_some"], dynamic_sampling=8, num_generations=3
    )
    assert len(asked) > len(batches)  # some were generated anew
    assert log["groups/alike"] == 0
    for batch in batches:
        assert batch["advantages"].any(1).view(-1, 3).any(1).all()
        assert (batch["weights"] > 0).all()


def test_groups_that_stay_alike_do_not_count(tmp_path, monkeypatch):
    batches, asked, log = first_rollout(
        tmp_path, monkeypatch, rewards=["same"], dynamic_sampling=2, entropy_weight=0.5
    )
    assert len(asked) == 2 * (1 + 2)
    assert log["groups/alike"] == 1
    assert log["loss"] == log["grad_norm"] == 0  # not even the entropy's
    assert not any(batch["weights"].any() for batch in batches)


def test_long_completions_are_worth_less(tmp_path, monkeypatch):
    _, asked, log = first_rollout(
        tmp_path, monkeypatch, rewards=["same"], overlong_buffer=5, overlong_penalty=2.0
    )
    for written, rewards in asked:
        tokens = np.array([len(answer.completion_ids) for answer in written])
        np.testing.assert_allclose(rewards, 0.5 - 2.0 * tokens / 5)
    assert log["rewards/overlong"] == pytest.approx(log["reward"] - 0.5)


# ---- several steps per rollout -------------------------------------------------------------------

FAMILY: dict[str, dict[str, Any]] = {
    "dapo": {"epsilon_high": 0.28, "dynamic_sampling": 1, "overlong_buffer": 2, "beta": 0.1},
    "gspo": {"loss": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-2},
    "cispo": {"loss": "cispo", "entropy_weight": 0.01},
    "sapo": {"loss": "sapo", "scale_rewards": "batch"},
    "reinforce++": {"advantage": "reinforce_plus_plus", "beta": 0.01, "kl_in_reward": True},
}


@pytest.mark.parametrize("name", FAMILY)
def test_reward_rises(tmp_path, name):
    made, reference = loaded(model()), loaded(model())
    stage = grpo(num_iterations=2, num_generations=8, **FAMILY[name])
    how = {"max_steps": 16, "logging_steps": 4, "learning_rate": 1e-2}
    run, result = run_stage(tmp_path, made, stage, reference=reference, **how)
    rewards = [each["reward"] for each in logs_of(run)]
    assert rewards[-1] > rewards[0] + 0.1
    assert (result.steps, result.tokens) == (16, logs_of(run)[-1]["tokens"])


@pytest.mark.parametrize("name", FAMILY)
def test_four_passes_of_one_prompt_are_one_of_four(tmp_path, name):
    found = []
    for folder, size in {"4x1": 1, "1x4": 4}.items():
        made = loaded(model())
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        stage = grpo(num_iterations=2, **FAMILY[name])
        run, _ = run_stage(tmp_path / folder, made, stage, reference=loaded(model()), **how)
        found.append((logs_of(run), weights(made)))
    (one, one_weights), (four, four_weights) = found
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_resumed_between_steps_on_the_same_completions(tmp_path, how):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    settings |= {
        "max_steps": 8,
        "logging_steps": 1,
        "save_total_limit": 100,
        "evals": {"it": prompts(3)},
    }

    def train(folder, **others):
        made, reference = adapted(how, 0.2), adapted(how)
        stage = grpo(num_iterations=3, **FAMILY["dapo"])
        return run_stage(tmp_path / folder, made, stage, reference=reference, **others, **settings)[
            0
        ]

    whole = train("whole", save_steps=5)
    kept = checkpoints(tmp_path / "whole" / "checkpoints")
    # max_steps is rounded up to 9; completions are kept where they will be trained on again
    assert [path.name for path in kept] == ["step-5", "step-9"]
    assert [(path / "stage-0.json").exists() for path in kept] == [True, False]
    first = prompts_run(tmp_path / "parts")
    with pytest.raises(Stopped, match="at step 5 of 9"):
        train("parts", stop=stop_after(5), run=first)
    resumed = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    second = train("parts", checkpoint=resumed, save_steps=5)
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-9" for name in ("whole", "parts")))
