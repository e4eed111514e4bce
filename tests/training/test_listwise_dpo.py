"""DPO with several rejected answers: losses by hand, equality with dpo for one of them, splits of a
step, resuming."""

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from answers_setup import preference, run_stage
from stage_checks import check_resumed, check_split
from training_setup import loaded, logs_of, lora, model

from tunewright_dpo import Dpo
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_listwise_dpo import ListwiseDpo
from tunewright_listwise_dpo.losses import plackett_luce, reward_metrics, softmax


def stage(**options: Any) -> ListwiseDpo:
    return ListwiseDpo(ListwiseDpo.Options(**options), "listwise_dpo")


def ranked(number: int = 16, seed: int = 0, others: int | None = None) -> datasets.Dataset:
    """Rows of `preference` with one to three rejected answers."""
    rows = preference(number, seed=seed)
    table = []
    for n, row in enumerate(rows):
        more = others if others is not None else n % 3
        wrong = [rows[(n + k) % number]["rejected_ids"] for k in range(1, more + 1)]
        answers = [row["chosen_ids"], row["rejected_ids"], *wrong]
        table.append({"prompt_ids": row["prompt_ids"], "answer_ids": answers})
    return datasets.Dataset.from_list(table)


def test_losses_by_hand() -> None:
    rewards = torch.tensor([0.3, -0.5, 0.9])
    a, b, c = (math.exp(each) for each in rewards.tolist())
    # S-DPO as the paper writes it: -log sigmoid(-log sum exp(r_l - r_w))
    difference = math.log(sum(math.exp(r - 0.3) for r in (-0.5, 0.9)))
    assert float(softmax(rewards)) == pytest.approx(-math.log(1 / (1 + math.exp(difference))))
    assert float(softmax(rewards)) == pytest.approx(-math.log(a / (a + b + c)))
    order = -math.log(a / (a + b + c)) - math.log(b / (b + c))
    assert float(plackett_luce(rewards)) == pytest.approx(order)
    found = [float(each) for each in reward_metrics(rewards)]
    assert found == pytest.approx([0.3, 0.2, 0.1, 0])


def test_lengths_count_every_answer() -> None:
    rows = datasets.Dataset.from_list([{"prompt_ids": [1, 2], "answer_ids": [[3], [4, 5, 6], [7]]}])
    assert row_lengths(rows).tolist() == [3 * 5]


SETTINGS: dict[str, Any] = {
    "max_steps": 4,
    "logging_steps": 1,
    "batching": "random",
    "learning_rate": 1e-3,
}


@pytest.mark.parametrize("loss", ["softmax", "plackett_luce"])
@pytest.mark.parametrize("cached", [True, False])
def test_with_one_rejected_answer_it_is_dpo(tmp_path: Path, loss: str, cached: bool) -> None:
    """Also gradients: four steps are alike."""
    rows, evals = ranked(others=0), {"it": ranked(5, seed=3, others=0)}
    how = {"reference": "base", "cache_reference": cached}
    ours, result = run_stage(
        tmp_path / "ours",
        lora(model(), dropout=0.0),
        stage(loss=loss, **how),
        rows,
        evals=evals,
        **SETTINGS,
    )
    theirs, expected = run_stage(
        tmp_path / "theirs",
        lora(model(), dropout=0.0),
        Dpo(Dpo.Options(**how), "dpo"),
        preference(),
        evals={"it": preference(5, seed=3)},
        **SETTINGS,
    )
    assert result.metrics["it_loss"] == pytest.approx(expected.metrics["it_loss"], rel=1e-5)
    for one, other in zip(logs_of(ours), logs_of(theirs), strict=True):
        shared = one.keys() & other.keys() - {"time", "tokens_per_second", "memory"}
        assert {"loss", "grad_norm", "rewards/margins"} <= shared
        found = {name: one[name] for name in shared}
        assert found == pytest.approx({name: other[name] for name in shared}, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("loss", ["softmax", "plackett_luce"])
def test_it_learns(tmp_path: Path, loss: str, how: str) -> None:
    made = lora(model(), dropout=0.0) if how == "lora" else loaded(model())
    evals = {"it": ranked(6)}
    _, result = run_stage(
        tmp_path, made, stage(loss=loss), ranked(), evals=evals, max_steps=60, learning_rate=3e-3
    )
    counts = (2, 3, 4)  # of the answers; before training all are as likely as by the reference
    start = {"softmax": math.log, "plackett_luce": lambda count: math.log(math.factorial(count))}
    before = sum(start[loss](count) for count in counts) / 3
    assert result.metrics["it_loss"] < 0.95 * before
    assert result.metrics["it_rewards/accuracies"] >= 4 / 6  # by chance 0.36


def test_a_step_does_not_depend_on_how_it_is_split(tmp_path: Path) -> None:
    check_split(tmp_path, lambda: loaded(model()), stage(), ranked(), ranked(5, seed=4))


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resumed(tmp_path, lambda: lora(model()), stage(), ranked())
