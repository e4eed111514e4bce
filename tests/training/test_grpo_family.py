"""Losses, advantages and sampling that followed GRPO: beside TRL's on the same rows, by hand, and
what should make no difference."""

from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from prompts_setup import own_rewards
from test_grpo import grpo
from test_resume import no_pickle
from torch.nn.utils.rnn import pad_sequence
from training_setup import model, tokenizer

from tunewright_grpo.advantage import parts, token_weights
from tunewright_grpo.losses import policy_loss
from tunewright_grpo.training import GrpoTrainer
from tunewright_hf.batching.collators import Padded
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
