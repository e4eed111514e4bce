"""Adapters with virtual tokens before a row: its labels belong to its own tokens."""

import pytest
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from training_setup import SIZE, loaded, logs_of, model, rows, run_training, tokenizer
from transformers import AutoModelForSequenceClassification, LlamaConfig

from tunewright import RunError
from tunewright.types import LoadedModel
from tunewright_hf.batching.collators import Padded
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.losses.chunked_cross_entropy import trained_positions
from tunewright_hf.losses.sequence_scores import scores_at_the_end

CONFIGS = {
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "p": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=8),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


def adapted(config):
    torch.manual_seed(1)
    return get_peft_model(model(), config)


@pytest.mark.parametrize("measured", [True, False], ids=["head", "logits"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_loss_is_that_of_peft(config, measured):
    made = adapted(config)
    batch = Padded(0)(list(rows(5)))
    batch["labels"][:, 0] = -100  # nothing of the row stands before it
    loss = CausalLoss(made)
    if not measured:
        loss.after_head = None
    weight = float(shift(batch["labels"], None)[1].sum())
    ours = loss(made, batch["inputs"], batch["labels"], None, 1 / weight)[0]
    theirs = made(**batch["inputs"], labels=batch["labels"], use_cache=False).loss
    torch.testing.assert_close(ours, theirs)
    logps, _ = loss.logps(made, batch["inputs"], batch["labels"])
    torch.testing.assert_close(-logps.sum() / weight, theirs)
    trained = [each for each in made.parameters() if each.requires_grad]
    gradients = [torch.autograd.grad(each, trained) for each in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_scores_of_sequences_are_at_their_own_last_token():
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_labels=1)
    base = AutoModelForSequenceClassification.from_config(config).eval()
    made = get_peft_model(base, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5))
    inputs = Padded(0)(list(rows(4)))["inputs"]
    together = scores_at_the_end(made, made, inputs)
    for number, ids in enumerate(inputs["input_ids"]):
        length = int(inputs["attention_mask"][number].sum())
        row = {"input_ids": ids[None, :length], "attention_mask": torch.ones(1, length).long()}
        torch.testing.assert_close(scores_at_the_end(made, made, row)[0], together[number])


def test_prompt_tuning_trains(tmp_path):
    made = LoadedModel(adapted(CONFIGS["prompt"]), tokenizer(), saves="adapter")
    run, result = run_training(tmp_path, made, max_steps=30, learning_rate=0.3)
    assert logs_of(run)[-1]["loss"] < logs_of(run)[0]["loss"]
    assert (result.path / "adapter_model.safetensors").exists()


def test_states_of_another_length_are_an_error():
    made = loaded(model()).model
    batch = Padded(0)(list(rows(2)))
    longer = torch.nn.functional.pad(batch["labels"], (0, 2), value=-100)
    with pytest.raises(RunError, match=r"gives states of \d+ positions for \d+ labels"):
        CausalLoss(made)(made, batch["inputs"], longer, None)
    with pytest.raises(ValueError, match=r"states \(1, 3, 4\) of targets \(1, 2\)"):
        trained_positions(torch.zeros(1, 3, 4), torch.zeros(1, 2, dtype=torch.long))
