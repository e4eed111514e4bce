"""Online DPO beside TRL's trainer, on the same completions."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from prompts_setup import own_rewards, prompts, wanted
from test_online_dpo import far_off, one_step
from torch.nn.utils.rnn import pad_sequence
from training_setup import model, tokenizer

from tunewright_online_dpo.losses import LOSSES

__all__ = ["own_rewards"]  # a fixture
pytestmark = pytest.mark.usefixtures("own_rewards")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_equals_that_of_trl(tmp_path, monkeypatch, loss):
    """Loss, gradient and metrics of TRL's trainer on the same completions, with a penalty."""
    given = {"loss": loss, "beta": 0.3, "missing_eos_penalty": 0.7, "max_new_tokens": 40}
    logged, (written, rewards), _ = one_step(tmp_path, monkeypatch, **given)
    assert (rewards.view(-1, 2).diff() != 0).all()  # else TRL takes the first completion
    trainer = their_trainer(tmp_path, written, loss_type=loss, beta=0.3, missing_eos_penalty=0.7)
    own = [row["prompt_ids"] for row in prompts()]
    seen = [own.index(answer.prompt_ids) for answer in written[::2]]
    found = trainer.training_step(trainer.model, {"prompt": [f"w{each}" for each in seen]})
    assert logged["loss"] == pytest.approx(found.item(), rel=1e-4)
    norms = [each.grad.norm() for each in trainer.model.parameters() if each.grad is not None]
    assert logged["grad_norm"] == pytest.approx(torch.stack(norms).norm().item(), rel=1e-4)
    for ours, theirs in {
        **{name: name for name in ("rewards/chosen", "rewards/rejected", "rewards/margins")},
        **{name: name for name in ("logps/chosen", "logps/rejected", "rewards/accuracies")},
        "reward": "objective/scores",
        "reward_margin": "objective/scores_margin",
    }.items():
        assert logged[ours] == pytest.approx(trainer.stats[theirs][0], rel=1e-4, abs=1e-6)


def their_trainer(folder: Path, written: Any, **config: Any) -> Any:
    """TRL's trainer, which generates these completions."""
    name = "trl.experimental.online_dpo"
    trl = pytest.importorskip(name, reason="TRL is the reference")
    arguments = trl.OnlineDPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=len(written) // 2,
        **config,
    )
    trainer = trl.OnlineDPOTrainer(
        model(),
        ref_model=far_off(),
        reward_funcs=lambda completions, **_: wanted(completions),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"prompt": "w3"}] * 4),
        processing_class=tokenizer(),
    )
    halves = [*written[::2], *written[1::2]]

    def padded(columns: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, ones = (
            pad_sequence([torch.tensor(each) for each in rows], batch_first=True)
            for rows in (columns, [[1] * len(each) for each in columns])
        )
        return ids, ones

    asked, asked_mask = padded([each.prompt_ids[::-1] for each in halves])
    ids, mask = padded([each.completion_ids for each in halves])
    generated = asked.flip(1), asked_mask.flip(1), ids, mask, None
    trainer._generate = lambda *_: generated
    return trainer
