"""Tests of the stages on prompts: sampling, and two processes equal one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from prompts_setup import REWARDS, own_rewards, prompts, run_stage
from training_setup import loaded, logs_of, lora, model, qwen

import forked
from tunewright import events
from tunewright_grpo import Grpo
from tunewright_hf.training.rollouts import RolloutGenerator, Sampling
from tunewright_online_dpo import OnlineDpo
from tunewright_ppo import Ppo

__all__ = ["own_rewards"]  # a fixture
PROMPT = [5, 6, 7]


def stages():
    """Made when asked: their rewards must be installed."""
    shared = {"rewards": ["wanted"], "max_new_tokens": 5}
    return {
        "grpo": Grpo(Grpo.Options(num_generations=3, **shared), "grpo"),
        "online_dpo": OnlineDpo(OnlineDpo.Options(**shared), "online_dpo"),
        "ppo": Ppo(Ppo.Options(ppo_epochs=2, beta=0, **shared), "ppo"),
    }


def sharper(made):
    """Probabilities that differ much from each other, without which drawing could hardly be
    wrong."""
    with torch.no_grad():
        made.lm_head.weight.mul_(20)
    return made


def next_probabilities(made, prompt=PROMPT) -> np.ndarray:
    with torch.no_grad():
        return made(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()


def first_tokens(made, sampling: Sampling, number: int) -> np.ndarray:
    written = RolloutGenerator(loaded(made), (), sampling).write(
        [PROMPT] * number, [(1, draw) for draw in range(number)]
    )
    return np.array([answer.completion_ids[0] for answer in written])


def test_answers_follow_the_models_distribution():
    """Chi-square over 128 tokens; the 0.9999 quantile of what is expected is below mean + 4.2
    standard deviations."""
    made, number = sharper(model()), 4000
    expected = next_probabilities(made) * number
    found = np.bincount(first_tokens(made, Sampling(1), number), minlength=128)
    often = expected >= 5
    assert 10 < often.sum() < 120
    observed = np.append(found[often], found[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    degrees = len(wanted) - 1
    assert ((observed - wanted) ** 2 / wanted).sum() < degrees + 4.2 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1), Sampling(1, temperature=0.5), Sampling(1, top_k=3), Sampling(1, top_p=0.6)],
)
def test_a_draw_is_the_inverse_of_the_cumulated_probabilities(sampling):
    made = sharper(model())
    weights = next_probabilities(made) ** (1 / sampling.temperature)
    order = np.argsort(-weights)
    weights /= weights.sum()
    if sampling.top_k:
        weights[order[sampling.top_k :]] = 0
    if sampling.top_p < 1:
        weights[order[np.cumsum(weights[order]) - weights[order] >= sampling.top_p]] = 0
    sums = np.cumsum(weights / weights.sum())
    numbers = [np.random.default_rng((1, draw)).random(1)[0] for draw in range(200)]
    assert first_tokens(made, sampling, 200).tolist() == [
        int(np.argmax(sums > number)) for number in numbers
    ]


@pytest.mark.parametrize(
    "made",
    [
        lambda: loaded(sharper(model())),
        lambda: lora(sharper(model())),
        lambda: loaded(model(qwen())),
    ],
)
def test_neither_padding_nor_neighbours_change_an_answer(made):
    made = made()
    rows = [row["prompt_ids"] for row in prompts(8, longest=7)]
    draws = [(1, 2, row) for row in range(8)]
    writer = RolloutGenerator(made, (), Sampling(12))
    together = writer.write(rows, draws)
    alone = [writer.write([row], [draw])[0] for row, draw in zip(rows, draws, strict=True)]
    assert together == alone
    assert [answer.prompt_ids for answer in together] == rows
    assert len({tuple(answer.completion_ids) for answer in together}) == 8


def test_randomness_of_the_training_is_left_alone_and_so_is_the_model():
    made = lora(model())
    made.model.train()
    state, settings = torch.get_rng_state(), made.model.generation_config
    one = RolloutGenerator(made, (), Sampling(8)).write([PROMPT], [(1,)])
    torch.rand(3)
    assert RolloutGenerator(made, (), Sampling(8)).write([PROMPT], [(1,)]) == one
    torch.set_rng_state(state)
    assert made.model.training
    assert made.model.generation_config is settings


@pytest.mark.parametrize("wrap", [loaded, lora])
def test_generation_settings_of_the_checkpoint_do_not_count(wrap):
    plain = RolloutGenerator(wrap(sharper(model())), (), Sampling(20)).write([PROMPT], [(1,)])
    made = sharper(model())
    made.generation_config.repetition_penalty = 5.0
    made.generation_config.suppress_tokens = plain[0].completion_ids[:1]
    made = wrap(made)
    assert RolloutGenerator(made, (), Sampling(20)).write([PROMPT], [(1,)]) == plain
    assert made.model.generation_config.repetition_penalty == 5.0


def test_an_answer_ends_at_a_stop_token_and_keeps_it():
    made = model()
    writer = RolloutGenerator(loaded(made), ("w9",), Sampling(6))
    with torch.no_grad():
        made.lm_head.weight.zero_()
        made.lm_head.weight[9] = 1e3 * made.model.norm.weight
    (answer,) = writer.write([PROMPT], [(1,)])
    assert answer.completion_ids[-1] == 9 or not answer.finished
    ends = [writer.rollout(PROMPT, ids) for ids in ([4, 9, 0, 0], [2, 0, 0, 0], [4, 5, 6, 7])]
    assert [(each.completion_ids, each.text, each.finished) for each in ends] == [
        ([4, 9], "w4", True),
        ([2], "", True),
        ([4, 5, 6, 7], "w4 w5 w6 w7", False),
    ]
    assert ends[0].row() == {
        "input_ids": [5, 6, 7, 4, 9],
        "labels": [-100, -100, -100, 4, 9],
        "media": (),
    }


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path, own_rewards):
    settings = {"max_steps": 4, "per_device_eval_batch_size": 2}
    asked = json.dumps({**settings, "per_device_train_batch_size": 2})
    worker = Path(__file__).parent / "prompts_worker.py"
    done = forked.run(worker, str(tmp_path / "two"), asked, processes=2)
    assert done.codes == [0, 0], done.error[-3000:]
    found = [
        json.loads(line[7:]) for line in done.output.splitlines() if line.startswith("RESULT ")
    ]
    for (name, stage), (logged, metrics, tokens) in zip(stages().items(), found, strict=True):
        run, result = run_stage(
            tmp_path / name,
            loaded(model()),
            stage,
            evals={"it": prompts(3)},
            reference=loaded(model()),
            per_device_train_batch_size=4,
            **settings,
        )
        assert tokens == result.tokens
        assert metrics == pytest.approx(result.metrics, rel=1e-4)
        for two, one in zip(logged, logs_of(run), strict=True):
            assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["grpo", "online_dpo", "ppo"])
def test_some_completions_are_shown_at_each_log(tmp_path, own_rewards, name):
    how = {"reference": loaded(model()), "logging_steps": 2, "max_steps": 4}
    run, _ = run_stage(tmp_path, loaded(model()), stages()[name], **how)
    shown = [event for event in run.events if isinstance(event, events.Sampled)]
    logged = [event.step for event in run.events if isinstance(event, events.Logged)]
    assert [event.step for event in shown] == [step for step in logged for _ in range(3)]
    for event in shown:
        assert event.stage == stages()[name].name
        assert event.prompt.split()[0][0] == "w"
        assert event.rewards["wanted"] == pytest.approx(
            sum(int(word[1:]) < 64 for word in event.completion.split() if word[0] == "w") / 5
        )
        assert "reward" in event.rewards


@pytest.mark.parametrize("differ", [False, True])
def test_rewards_that_are_all_alike_are_reported(tmp_path, own_rewards, monkeypatch, differ):
    if not differ:
        monkeypatch.setattr("prompts_setup.REWARDS", {**REWARDS, "wanted": REWARDS["same"]})
    for name, stage in stages().items():
        how = {"reference": loaded(model()), "logging_steps": 2, "max_steps": 4}
        run, _ = run_stage(tmp_path / name, loaded(model()), stage, **how)
        said = [
            event.message
            for event in run.events
            if isinstance(event, events.Notice) and "are alike" in event.message
        ]
        assert len(said) == (0 if differ else 1), name
