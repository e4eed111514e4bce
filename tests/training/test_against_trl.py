"""Our losses beside those of TRL's trainers, on the same rows with the same model.

TRL serves here as a reference; nothing in the sources imports it.
"""

import warnings
from typing import Any

import datasets
import pytest
import torch
from answers_setup import preference, run_stage, unpaired
from torch.nn.utils.rnn import pad_sequence
from training_setup import VOCAB, loaded, logs_of, model, rows, run_training, tokenizer

from tunewright_cpo import Cpo
from tunewright_dpo import Dpo
from tunewright_kto import Kto
from tunewright_kto.training import Mismatched
from tunewright_orpo import Orpo
from tunewright_simpo import Simpo

trl = pytest.importorskip("trl", reason="TRL is the reference")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
COUNT = 8


def reference() -> Any:
    made = model()
    with torch.no_grad():
        made.lm_head.weight.mul_(-3)
    return made


def arguments(folder, **more):
    return {
        "output_dir": str(folder / "trl"),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "per_device_train_batch_size": COUNT,
        "disable_dropout": False,
        **more,
    }


def ours(folder, stage, data, **given) -> dict[str, float]:
    """The metrics of one step over all rows, which changes nothing to speak of."""
    settings = {"max_steps": 1, "per_device_train_batch_size": COUNT, "batching": "random"}
    run, _ = run_stage(
        folder, loaded(model()), stage, data, learning_rate=1e-12, **settings, **given
    )
    return logs_of(run)[0]


def their_loss(trainer, data) -> float:
    batch = trainer.data_collator(list(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(trainer.compute_loss(trainer.model, batch))


def test_sft(tmp_path):
    data = rows(COUNT)
    run, _ = run_training(
        tmp_path,
        loaded(model()),
        data,
        max_steps=1,
        per_device_train_batch_size=COUNT,
        batching="random",
    )
    config = arguments(tmp_path, max_length=None)
    config.pop("disable_dropout")
    skipped = {"skip_prepare_dataset": True}
    trainer = trl.SFTTrainer(
        model(),
        trl.SFTConfig(**config, dataset_kwargs=skipped),
        train_dataset=data,
        processing_class=tokenizer(),
    )
    assert logs_of(run)[0]["loss"] == pytest.approx(their_loss(trainer, data), rel=1e-5)


class Prepared:
    """Rows come tokenised."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


LOSSES = (
    "sigmoid hinge ipo robust bco_pair exo_pair nca_pair apo_zero apo_down sppo_hard sigmoid_norm"
)


@pytest.mark.parametrize("loss", LOSSES.split())
def test_dpo(tmp_path, loss):
    data = preference(COUNT)
    smoothing = 0.1 if loss in ("robust", "exo_pair") else 0.0
    stage = Dpo(Dpo.Options(loss=loss, beta=0.3, label_smoothing=smoothing), "dpo")
    found = ours(tmp_path, stage, data, reference=loaded(reference()))

    class Trainer(Prepared, trl.DPOTrainer):
        pass

    config = arguments(tmp_path, loss_type=[loss], beta=0.3, label_smoothing=smoothing)
    trainer = Trainer(
        model(),
        reference(),
        trl.DPOConfig(**config, max_length=None),
        train_dataset=data.remove_columns("margin"),
        processing_class=tokenizer(),
    )
    assert found["loss"] == pytest.approx(their_loss(trainer, data), rel=1e-4)


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
def test_kto(tmp_path, loss):
    data = unpaired(COUNT)
    options = Kto.Options(loss=loss, beta=0.3, desirable_weight=1.5)
    found = ours(tmp_path, Kto(options, "kto"), data, reference=loaded(reference()))
    mismatched = Mismatched(data, 42, 2048)
    shown = [
        {**row, "KL_completion_ids": mismatched[number]["kl_ids"]}
        for number, row in enumerate(data)
    ]

    class Trainer(Prepared, trl.KTOTrainer):
        pass

    config = arguments(tmp_path, loss_type=loss, beta=0.3, desirable_weight=1.5)
    trainer = Trainer(
        model(),
        reference(),
        trl.KTOConfig(**config, max_length=None),
        train_dataset=datasets.Dataset.from_list(shown),
        processing_class=tokenizer(),
    )
    assert found["loss"] == pytest.approx(their_loss(trainer, shown), rel=1e-4)


def concatenable(data) -> dict[str, torch.Tensor]:
    """A batch as TRL's experimental trainers have it."""
    batch = {}
    for side in ("chosen", "rejected"):
        ids = [torch.tensor(row["prompt_ids"] + row[f"{side}_ids"]) for row in data]
        labels = [
            torch.tensor([-100] * len(row["prompt_ids"]) + row[f"{side}_ids"]) for row in data
        ]
        batch[f"{side}_input_ids"] = pad_sequence(ids, batch_first=True)
        batch[f"{side}_attention_mask"] = pad_sequence(
            [torch.ones_like(each) for each in ids], batch_first=True
        )
        batch[f"{side}_labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    prompts = [torch.tensor(row["prompt_ids"]) for row in data]
    batch["prompt_input_ids"] = pad_sequence(prompts, batch_first=True)
    batch["prompt_attention_mask"] = (batch["prompt_input_ids"] > 0).long()
    return batch


def experimental(name: str, folder, **config) -> Any:
    module = pytest.importorskip(f"trl.experimental.{name}")
    own, settings = (
        getattr(module, f"{name.upper()}Trainer"),
        getattr(module, f"{name.upper()}Config"),
    )

    class Trainer(own):
        def tokenize_row(self, *_, **__):
            return {}

    text = datasets.Dataset.from_list([{"prompt": "w3", "chosen": "w4", "rejected": "w5"}] * 2)
    return Trainer(
        model(),
        settings(**arguments(folder, **config), max_length=VOCAB),
        train_dataset=text,
        processing_class=tokenizer(),
    )


def test_orpo(tmp_path):
    data = preference(COUNT)
    found = ours(tmp_path, Orpo(Orpo.Options(beta=0.3), "orpo"), data)
    trainer = experimental("orpo", tmp_path, beta=0.3)
    loss, metrics = trainer.get_batch_loss_metrics(trainer.model, concatenable(data))
    # TRL's first term is over prompt and answer (its own remark: as in the paper's code), ours over
    # the answer; the odds are the same
    assert found["log_odds_ratio"] == pytest.approx(metrics["log_odds_ratio"], rel=1e-4)
    assert found["log_odds_chosen"] == pytest.approx(metrics["log_odds_chosen"], rel=1e-4)
    rest = float(loss) - metrics["nll_loss"]
    assert found["loss"] - found["nll_loss"] == pytest.approx(rest, rel=1e-3)


def test_simpo(tmp_path):
    data = preference(COUNT)
    options = Simpo.Options(beta=2.0, gamma=0.7, label_smoothing=0.1)
    found = ours(tmp_path, Simpo(options, "simpo"), data)
    trainer = experimental(
        "cpo",
        tmp_path,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=2.0,
        simpo_gamma=0.7,
        label_smoothing=0.1,
    )
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, concatenable(data))
    assert found["loss"] == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_cpo(tmp_path, loss):
    data = preference(COUNT)
    smoothing = 0.1 if loss == "sigmoid" else 0.0
    options = Cpo.Options(loss=loss, beta=0.3, sft_weight=0.5, label_smoothing=smoothing)
    found = ours(tmp_path, Cpo(options, "cpo"), data)
    trainer = experimental(
        "cpo", tmp_path, loss_type=loss, cpo_alpha=0.0, beta=0.3, label_smoothing=smoothing
    )
    expected, _ = trainer.get_batch_loss_metrics(trainer.model, concatenable(data))
    # their likelihood is a mean over all tokens of the batch, ours over those of each answer
    assert found["loss"] - 0.5 * found["nll_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_mpo(tmp_path):
    data = preference(COUNT)
    mixed = {"sigmoid": 0.8, "bco_pair": 0.2}
    stage = Dpo(Dpo.Options(loss=mixed, beta=0.3, sft_weight=1.5), "dpo")
    found = ours(tmp_path, stage, data, reference=loaded(reference()))

    class Trainer(Prepared, trl.DPOTrainer):
        pass

    weights = {"loss_type": [*mixed, "sft"], "loss_weights": [*mixed.values(), 1.5]}
    trainer = Trainer(
        model(),
        reference(),
        trl.DPOConfig(**arguments(tmp_path, **weights, beta=0.3), max_length=None),
        train_dataset=data.remove_columns("margin"),
        processing_class=tokenizer(),
    )
    expected = their_loss(trainer, data)
    # their likelihood is a mean over all tokens of the batch, ours over those of each answer
    lengths = torch.tensor([len(row["chosen_ids"]) for row in data]).float()
    nll = mean_nll(data)
    difference = 1.5 * ((nll * lengths).sum() / lengths.sum() - nll.mean())
    assert found["loss"] + float(difference) == pytest.approx(expected, rel=1e-4)


def mean_nll(data: Any) -> torch.Tensor:
    """Of each chosen answer's tokens, under the small model."""
    made, found = model(), []
    for row in data:
        prompt, answer = row["prompt_ids"], row["chosen_ids"]
        with torch.no_grad():
            logits = made(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        found.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)))
    return torch.stack(found)
