"""Each loss against numbers worked out apart, in a few lines of numpy or by hand; and what the
batches are made of."""

import numpy as np
import pytest
import torch
from answers_setup import preference, run_stage, unpaired
from safetensors.torch import load_file
from training_setup import SIZE, loaded, logs_of, lora, model
from transformers import AutoModelForSequenceClassification, LlamaConfig

from tunewright import RunError
from tunewright_dpo import Dpo
from tunewright_dpo.losses import LOSSES, Ratios
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_hf.training.preference import PreferenceCollator, pair_metrics, sequence_logps
from tunewright_kto import Kto
from tunewright_kto.training import Mismatched, kto
from tunewright_orpo.training import log_odds_ratio
from tunewright_reward import Reward
from tunewright_reward.training import bradley_terry
from tunewright_simpo.training import simpo


def s(x):
    return 1 / (1 + np.exp(-x))


# log-probabilities of two answers of two tokens each: the chosen is 0.6 above its reference, the
# rejected 0.4 below
CHOSEN, REJECTED, TOKENS, BETA = 0.6, -0.4, 2, 0.5
MARGIN = 0.5  # beta * (0.6 + 0.4)
EXPECTED = {
    "sigmoid": 0.9 * -np.log(s(MARGIN)) + 0.1 * -np.log(s(-MARGIN)),
    "robust": (0.9 * -np.log(s(MARGIN)) - 0.1 * -np.log(s(-MARGIN))) / 0.8,
    "hinge": 0.5,
    "ipo": 0.25,  # (0.3 + 0.2 - 1)²
    "sigmoid_norm": -np.log(s(0.25)),
    "bco_pair": -np.log(s(0.3 - 0.05)) - np.log(s(0.2 + 0.05)),
    "exo_pair": s(MARGIN) * np.log(s(MARGIN) / 0.9) + s(-MARGIN) * np.log(s(-MARGIN) / 0.1),
    "nca_pair": -np.log(s(0.3)) - 0.5 * np.log(s(-0.3)) - 0.5 * np.log(s(0.2)),
    "apo_zero": 1 - s(0.3) + s(-0.2),
    "apo_down": s(0.3) + 1 - s(0.5),
    "sppo_hard": 0.16 + 0.36,  # (0.6 - 1)² + (-0.4 + 1)²
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name):
    sums = torch.tensor([[CHOSEN], [REJECTED]], dtype=torch.float64)
    found = LOSSES[name](Ratios(sums, sums / TOKENS, mean_reward=0.05), BETA, 0.1)
    assert found.item() == pytest.approx(EXPECTED[name], abs=1e-9)


def test_several_losses_with_their_weights(tmp_path):
    """At the first step nothing differs from the reference: 0.8 ln 2 + 0.2 · 2 ln 2, and the SFT
    term (MPO)."""
    stage = Dpo(Dpo.Options(loss={"sigmoid": 0.8, "bco_pair": 0.2}, sft_weight=1.0), "dpo")
    run, _ = run_stage(tmp_path, loaded(model()), stage, max_steps=1)
    (first,) = logs_of(run)
    assert first["loss"] == pytest.approx(1.2 * np.log(2) + first["nll_loss"], rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_prefers_the_chosen_answer(name):
    """At the start, where nothing differs from the reference: down the slope the margin rises."""
    sums = torch.zeros(2, 1, requires_grad=True)
    LOSSES[name](
        Ratios(sums, sums / TOKENS), BETA, 0.1 if name == "exo_pair" else 0.0
    ).sum().backward()
    chosen, rejected = -sums.grad.flatten()
    assert chosen > rejected


def test_metrics_have_the_right_signs():
    found = pair_metrics(
        torch.tensor([[2.0, 0.0], [-1.0, 3.0]]), torch.tensor([[-5.0, -6.0], [-7.0, -8.0]])
    )
    assert {name: each.tolist() for name, each in found.items()} == {
        "rewards/chosen": [2.0, 0.0],
        "rewards/rejected": [-1.0, 3.0],
        "rewards/margins": [3.0, -3.0],
        "rewards/accuracies": [1.0, 0.0],
        "logps/chosen": [-5.0, -6.0],
        "logps/rejected": [-7.0, -8.0],
    }


def test_log_probabilities_are_those_of_the_answers_tokens():
    made, data = model().eval(), preference(3)
    batch = PreferenceCollator(0)(list(data))
    with torch.no_grad():
        found = sequence_logps(CausalLoss(made), made, batch, 2)
        for answer, name in enumerate(("chosen_ids", "rejected_ids")):
            for place, row in enumerate(data):
                prompt, ids = row["prompt_ids"], row[name]
                logits = made(input_ids=torch.tensor([prompt + ids])).logits[
                    0, len(prompt) - 1 : -1
                ]
                expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum().item()
                assert found.sums[answer, place].item() == pytest.approx(expected, rel=1e-5)
                assert found.means[answer, place].item() == pytest.approx(
                    expected / len(ids), rel=1e-5
                )
                assert found.lengths[answer, place] == len(ids)
    assert found.auxiliary == 0


def test_an_answer_is_taken_as_it_comes():
    """No end token is added to the one that it has (TRL's ORPO wrote two)."""
    row = {"prompt_ids": [5, 6], "chosen_ids": [7, 2], "rejected_ids": [8, 9, 2]}
    batch = PreferenceCollator(0)([row])
    assert batch["inputs"]["input_ids"].tolist() == [[5, 6, 7, 2, 0], [5, 6, 8, 9, 2]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2, -100], [-100, -100, 8, 9, 2]]
    assert batch["inputs"]["attention_mask"].sum(1).tolist() == [4, 5]


def test_tokens_beyond_the_shorter_answer_weigh_less():
    row = {"prompt_ids": [5], "chosen_ids": [7, 2], "rejected_ids": [8, 9, 10, 2]}
    batch = PreferenceCollator(0, ld_alpha=0.25)([row])
    assert batch["loss_weights"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0.25, 0.25]]


def test_the_first_loss_is_known(tmp_path):
    """Nothing differs from the reference yet; with an SFT term its share is added."""
    run, _ = run_stage(
        tmp_path, loaded(model()), Dpo(Dpo.Options(sft_weight=0.5), "dpo"), max_steps=1
    )
    (first,) = logs_of(run)
    assert first["loss"] == pytest.approx(np.log(2) + 0.5 * first["nll_loss"], rel=1e-6)
    assert first["rewards/margins"] == 0


def test_simpo():
    """Means of -1 and -1.5 nats a token, beta 2, gamma 0.4: a margin of 1 - 0.4."""
    found = simpo(torch.tensor([[-1.0], [-1.5]]), beta=2.0, gamma=0.4, smoothing=0.0)
    assert found.item() == pytest.approx(-np.log(s(0.6)), rel=1e-6)
    found = simpo(torch.tensor([[-1.0], [-1.5]]), beta=2.0, gamma=0.4, smoothing=0.1)
    assert found.item() == pytest.approx(-0.9 * np.log(s(0.6)) - 0.1 * np.log(s(-0.6)), rel=1e-6)


@pytest.mark.parametrize(("chosen", "rejected"), [(0.5, 0.25), (0.9, 0.001), (0.1, 0.6)])
def test_orpo(chosen, rejected):
    """From probabilities per token."""
    found = log_odds_ratio(torch.tensor([[chosen], [rejected]]).log())
    expected = np.log(chosen / (1 - chosen) * (1 - rejected) / rejected)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_orpo_of_a_certain_answer_is_finite():
    means = torch.tensor([[0.0], [-50.0]], requires_grad=True)
    ratio = log_odds_ratio(means)
    ratio.sum().backward()
    assert ratio.isfinite().all()
    assert means.grad.isfinite().all()


def test_kto():
    """Rewards of 0.3 and of -0.2, against a divergence of 0.1."""
    found = kto(torch.tensor([0.3, -0.2]), torch.tensor([True, False]), 0.1)
    assert found.tolist() == pytest.approx([1 - s(0.2), 1 - s(0.3)])
    found = kto(torch.tensor([0.3, -0.2]), torch.tensor([True, False]), 0.0)
    assert found.tolist() == pytest.approx([1 - s(0.3), s(-0.2)])


def test_the_answers_that_ktos_divergence_is_estimated_with_are_those_of_other_rows():
    """Each answer once, never a row's own, the same in every batch, and never longer than rows may
    be."""
    data = unpaired(12)
    rows = Mismatched(data, seed=1, max_length=10)
    assert sorted(rows.partners.tolist()) == list(range(12))
    assert not any(partner == row for row, partner in enumerate(rows.partners))
    for number in range(12):
        row, other = rows[number], data[int(rows.partners[number])]
        room = max(1, 10 - len(row["prompt_ids"]))
        assert row["kl_ids"] == other["completion_ids"][:room]
        assert row["completion_ids"] == data[number]["completion_ids"]
    with pytest.raises(RunError, match="one row alone"):
        Mismatched(unpaired(1), seed=1, max_length=10)


def test_ktos_divergence_is_that_of_the_whole_step(tmp_path):
    """Against the reference that the model was before the first step: 0 there, and then the same
    for every row."""
    data, made = unpaired(8), loaded(model())
    stage = Kto(Kto.Options(), "kto")
    settings = {
        "learning_rate": 3e-2,
        "batching": "random",
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
    }
    run, _ = run_stage(tmp_path, made, stage, data, max_steps=2, **settings)
    assert logs_of(run)[0]["kl"] == 0
    again, before = loaded(model()), model()
    run_stage(tmp_path / "one", again, stage, data, max_steps=1, **settings)
    rows = Mismatched(data, 42, 2048)
    batch = PreferenceCollator(0, ("kl_ids",))(
        [{**rows[number], "label": True} for number in range(8)]
    )
    with torch.no_grad():
        one, first = (
            sequence_logps(CausalLoss(each.eval()), each, batch, 1).sums
            for each in (again.model, before)
        )
    expected = (one - first).mean().item()
    assert expected > 0
    assert logs_of(run)[1]["kl"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_ktos_weights(tmp_path):
    """All answers good, and nothing differs from the reference: half the weight each."""
    data = unpaired(4).map(lambda row: {"label": True})
    for name, weight in (("desirable_weight", 3.0), ("undesirable_weight", 1.0)):
        stage = Kto(Kto.Options(**{name: 3.0}), "kto")
        run, _ = run_stage(tmp_path / name, loaded(model()), stage, data, max_steps=1)
        assert logs_of(run)[0]["loss"] == pytest.approx(weight / 2, rel=1e-5)
        assert not [
            key for key in logs_of(run)[0] if key in ("rewards/rejected", "rewards/margins")
        ]


def test_bradley_terry():
    rewards = torch.tensor([[1.2], [0.2]])
    assert bradley_terry(rewards, 0.0, 0.0).item() == pytest.approx(-np.log(s(1.0)), rel=1e-6)
    found = bradley_terry(rewards, torch.tensor([0.3]), 0.01)
    assert found.item() == pytest.approx(-np.log(s(0.7)) + 0.01 * 1.96, rel=1e-6)


def test_a_reward_is_read_at_the_last_token_even_where_that_pads_too(tmp_path):
    """The pad token is the end token: transformers alone would read the token before it."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE | {"pad_token_id": 2}, num_labels=1)
    made = AutoModelForSequenceClassification.from_config(config)
    data = preference(3)
    with torch.no_grad():
        found = scores_at_the_end(made, made, PreferenceCollator(2)(list(data))["inputs"])
        for place, (name, row) in enumerate(
            (name, row) for name in ("chosen_ids", "rejected_ids") for row in data
        ):
            states = made.model(torch.tensor([row["prompt_ids"] + row[name]])).last_hidden_state
            assert found[place].item() == pytest.approx(made.score(states[0, -1]).item(), rel=1e-4)


def test_a_reward_model_in_half_precision_has_its_head_in_full(tmp_path):
    """Like under QLoRA, where the model computes in bf16 and the head is trained (TRL: float !=
    BFloat16)."""
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification.from_config(
        LlamaConfig(**SIZE, num_labels=1)
    ).bfloat16()
    adapted = lora(made, 0.0, "SEQ_CLS")
    for name, parameter in adapted.model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.dtype == torch.bfloat16, name
    run, result = run_stage(tmp_path, adapted, Reward(Reward.Options(), "reward"), precision="bf16")
    assert np.isfinite(logs_of(run)[-1]["loss"])
    assert "score" in " ".join(load_file(result.path / "adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "exo_pair"}, "exo_pair needs label_smoothing"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "does nothing for ipo"),
        (
            {"loss": {"ipo": 1, "hinge": 1}, "label_smoothing": 0.1},
            "does nothing for ipo and hinge",
        ),
        ({"loss": {"exo_pair": 1}}, "exo_pair needs label_smoothing"),
        ({"loss": {"sigmoid": 0}}, "greater than 0"),
        ({"loss": {}}, "at least 1 item"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        Dpo.Options(**options)
