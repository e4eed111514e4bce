"""Tests of all stages on pairs and labels: the loss falls, and equivalent settings give equal
results."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from answers_setup import preference, run_stage, unpaired
from training_setup import SIZE, a_run, loaded, logs_of, lora, model
from transformers import AutoModelForSequenceClassification, LlamaConfig

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_cpo import Cpo
from tunewright_dpo import Dpo
from tunewright_hf.batching.row_stream import Window
from tunewright_hf.models.modules import train_only
from tunewright_kto import Kto
from tunewright_orpo import Orpo
from tunewright_reward import Reward
from tunewright_simpo import Simpo


@dataclass
class Case:
    stage: Any
    rows: Any
    first_loss: float | None  # where it is known
    head: str = "causal_lm"


CASES = {
    "dpo": Case(Dpo(Dpo.Options(), "dpo"), preference, math.log(2)),
    "bco": Case(
        Dpo(Dpo.Options(loss="bco_pair", ld_alpha=0.5), "dpo"), preference, 2 * math.log(2)
    ),
    "reward": Case(
        Reward(Reward.Options(center_coefficient=0.01), "reward"), preference, None, "score"
    ),
    "kto": Case(Kto(Kto.Options(desirable_weight=1.5), "kto"), unpaired, None),
    "orpo": Case(Orpo(Orpo.Options(), "orpo"), preference, None),
    "cpo": Case(Cpo(Cpo.Options(), "cpo"), preference, None),
    "simpo": Case(Simpo(Simpo.Options(), "simpo"), preference, None),
}
LOSSLESS = {"batching": "random"}


def plain(case: Case, dropout: float = 0.0) -> Any:
    if case.head == "causal_lm":
        return model(dropout=dropout)
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_labels=1, attention_dropout=dropout)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def adapted(case: Case, how: str, dropout: float = 0.0) -> LoadedModel:
    """The small model, tuned in full, in its last layer, or through adapters."""
    if how == "lora":
        return lora(
            plain(case, dropout), dropout, "CAUSAL_LM" if case.head == "causal_lm" else "SEQ_CLS"
        )
    made = plain(case, dropout)
    if how == "freeze":
        train_only(
            made,
            [
                name
                for name, _ in made.named_parameters()
                if name.startswith(("model.layers.1.", "score"))
            ],
        )
    return loaded(made)


def weights(made: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in made.model.named_parameters()}


@pytest.mark.parametrize("how", ["full", "freeze", "lora"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_learns_and_only_what_it_is_to_train_moves(tmp_path, case, how):
    made = adapted(case, how)
    before = weights(made)
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    rate = {"full": 3e-3, "freeze": 1e-2, "lora": 2e-2}[how]
    run, result = run_stage(
        tmp_path,
        made,
        case.stage,
        case.rows(8),
        max_steps=16,
        per_device_train_batch_size=8,
        learning_rate=rate,
        logging_steps=4,
        **LOSSLESS,
    )
    first, *_, last = logs_of(run)
    assert last["loss"] < first["loss"]
    assert last["rewards/margins"] > first["rewards/margins"]
    assert last["rewards/margins"] == pytest.approx(
        last["rewards/chosen"] - last["rewards/rejected"], abs=1e-4
    )
    if case.first_loss is not None:
        assert first["loss"] == pytest.approx(case.first_loss, rel=1e-5)
    moved = {name for name, each in weights(made).items() if not torch.equal(each, before[name])}
    assert moved == trained
    assert (result.steps, result.tokens) == (16, last["tokens"])
    assert (result.path / f"{'adapter_' if how == 'lora' else ''}model.safetensors").exists()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_how_rows_are_spread_over_passes_and_padded_makes_no_difference(tmp_path, case):
    """4×1 = 1×4, which pads nothing; and the batches of equal rows with token_budget."""
    found = {}
    for name, how in {
        "4x1": {"per_device_train_batch_size": 4, **LOSSLESS},
        "1x4": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, **LOSSLESS},
    }.items():
        made = adapted(case, "full")
        run, _ = run_stage(tmp_path / name, made, case.stage, case.rows(11), max_steps=4, **how)
        found[name] = logs_of(run), weights(made)
    (one, one_weights), (four, four_weights) = found.values()
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(one_weights, four_weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rows_of_like_length_side_by_side_are_the_same_rows(tmp_path, case):
    """All rows in each step: then only the padding differs."""
    found = {}
    for name, how in {
        "padded": {"per_device_train_batch_size": 12, **LOSSLESS},
        "grouped": {
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 4,
            "batching": "length_grouped",
        },
    }.items():
        run, _ = run_stage(
            tmp_path / name, adapted(case, "full"), case.stage, case.rows(12), max_steps=3, **how
        )
        found[name] = logs_of(run)
    for left, right in zip(*found.values(), strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_evaluation_leaves_training_alone_and_is_what_it_is_in_any_batches(tmp_path, case):
    evals = {"it": case.rows(7, seed=5), "seen": case.rows(4)}
    made = [adapted(case, "full") for _ in range(3)]
    run, result = run_stage(
        tmp_path / "a", made[0], case.stage, evals=evals, eval_steps=2, per_device_eval_batch_size=2
    )
    _, other = run_stage(
        tmp_path / "b", made[1], case.stage, evals=evals, eval_steps=5, per_device_eval_batch_size=7
    )
    alone, _ = run_stage(tmp_path / "c", made[2], case.stage, per_device_eval_batch_size=2)
    assert logs_of(run) == logs_of(alone)
    assert all(torch.equal(each, weights(made[2])[name]) for name, each in weights(made[0]).items())
    assert {
        "it_loss",
        "seen_loss",
        "it_rewards/margins",
        "seen_rewards/margins",
    } <= result.metrics.keys()
    assert result.metrics == pytest.approx(other.metrics, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"reference": "base"}, {"reference": "base", "cache_reference": False}]
)
def test_an_adapter_that_is_new_is_held_against_the_model_below_it(tmp_path, options):
    stage = Dpo(Dpo.Options(**options), "dpo")
    run, _ = run_stage(tmp_path, lora(model(), 0.0), stage)
    expected, _ = run_stage(tmp_path / "other", lora(model(), 0.0), Dpo(Dpo.Options(), "dpo"))
    for left, right in zip(logs_of(run), logs_of(expected), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_a_second_model_gives_what_scoring_ahead_gives(tmp_path, name):
    """In full, without a path that the model came from (TRL would load it again from there)."""
    case = CASES[name]
    plugin = type(case.stage)
    stage = plugin(plugin.Options(cache_reference=False), name)
    assert stage.models == ("policy", "reference")
    run, _ = run_stage(tmp_path / "a", loaded(model()), stage, reference=loaded(model()))
    expected, _ = run_stage(tmp_path / "b", loaded(model()), plugin(plugin.Options(), name))
    assert plugin(plugin.Options(), name).models == ("policy",)
    for left, right in zip(logs_of(run), logs_of(expected), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("cached", [True, False])
def test_another_model_may_be_the_reference(tmp_path, cached):
    asked = []

    def load(**how):
        asked.append(how)
        return loaded(model())

    torch.manual_seed(3)
    other = loaded(model())
    with torch.no_grad():
        other.model.lm_head.weight.mul_(2)
    stage = Dpo(Dpo.Options(reference="some/model", cache_reference=cached), "dpo")
    run, _ = run_stage(tmp_path, other, stage, run=a_run(tmp_path, loads=load))
    assert [str(how["prior"].path) for how in asked] == [str(Path("some/model"))]
    assert logs_of(run)[0]["rewards/margins"] != 0


def test_the_reference_of_an_adapter_that_goes_on_is_the_adapter_as_it_was(tmp_path):
    made = lora(model(), 0.0)
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    run, _ = run_stage(tmp_path, made, Dpo(Dpo.Options(), "dpo"), max_steps=1)
    assert logs_of(run)[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)


def test_base_needs_an_adapter_that_left_the_model_as_it_was(tmp_path):
    stage = Dpo(Dpo.Options(reference="base"), "dpo")
    with pytest.raises(RecipeError, match="no adapter to leave out"):
        run_stage(tmp_path, loaded(model()), stage)
    made = lora(model())
    made.model.peft_config["default"].init_lora_weights = "pissa"
    with pytest.raises(RecipeError, match="begin with pissa"):
        run_stage(tmp_path, made, stage)


class Stream:
    """Rows that are read while training goes on, in two windows."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def windows(self, epoch, first, seen):
        halves = [range(len(self.rows) // 2), range(len(self.rows) // 2, len(self.rows))]
        yield from (Window(self.rows.select(half), {}) for half in halves[first:])

    def summary(self, seen):
        return []


def test_rows_may_be_read_while_training_goes_on(tmp_path):
    for stage in (
        CASES["orpo"].stage,
        Dpo(Dpo.Options(reference="base", cache_reference=False), "dpo"),
    ):
        run, result = run_stage(
            tmp_path / stage.name, lora(model(), 0.0), stage, Stream(preference(12)), max_steps=4
        )
        assert result.steps == 4
        assert math.isfinite(logs_of(run)[-1]["rewards/margins"])


@pytest.mark.parametrize(
    ("name", "message"), [("dpo", "cannot score rows"), ("kto", "answers of other rows")]
)
def test_what_cannot_be_done_with_rows_that_are_read_meanwhile_is_reported(tmp_path, name, message):
    case = CASES[name]
    with pytest.raises(RecipeError, match=message):
        run_stage(tmp_path, loaded(model()), case.stage, Stream(case.rows(12)), max_steps=4)
