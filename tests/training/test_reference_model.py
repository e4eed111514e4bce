"""Another model as the reference of a whole run: as it is, and quantized though the policy is
not."""

import math
from unittest import mock

import pytest
import torch

from tunewright.run import train
from tunewright_dpo import Dpo
from tunewright_hf.training import reference

ROWS = '{"prompt": "Who sings?", "chosen": "A wren.", "rejected": "No."}\n' * 4


def run(folder, output, stage):
    recipe = {
        "model": "tiny",
        "family": {"name": "llama", "device": "cpu", "tiny_hidden_size": 16, "tiny_layers": 1},
        "adapter": "full",
        "stage": stage,
        "data": [{"path": str(folder / "rows.jsonl")}],
        "loggers": [],
        "training": {"max_steps": 1, "precision": "fp32"},
        "output": str(folder / output),
    }
    return train(recipe)


@pytest.mark.parametrize("stage", ["dpo", "ppo"])
@pytest.mark.parametrize(
    ("quantizer", "formats"),
    [
        (None, set()),
        ("bitsandbytes", {torch.uint8}),
        ({"name": "bitsandbytes", "bits": 8}, {torch.int8}),
    ],
)
def test_a_reference_that_is_quantized(tmp_path, stage, quantizer, formats):
    (tmp_path / "rows.jsonl").write_text(ROWS, "utf-8")
    before = run(tmp_path, "before", {"name": "dpo"})
    (tmp_path / "rows.jsonl").write_text(
        ROWS if stage == "dpo" else '{"prompt": "Who?"}\n' * 4, "utf-8"
    )
    made, second = [], reference.second_model

    def watched(*given):
        made.append(second(*given))
        return made[-1]

    options = {
        "dpo": {},
        "ppo": {"rewards": [{"name": "length", "target": 5}], "max_new_tokens": 3, "ppo_epochs": 1},
    }
    section = {
        "name": stage,
        "reference": str(before.path),
        "reference_quantizer": quantizer,
        **options[stage],
    }
    with mock.patch(
        f"tunewright_hf.training.{'reference' if stage == 'dpo' else 'online_rl'}.second_model",
        watched,
    ):
        result = run(tmp_path, "after", section)
    assert math.isfinite(result.metrics["loss"])
    assert {each.dtype for each in made[0].model.parameters()} == formats | {torch.float32}


def test_what_is_the_model_itself_has_no_quantizer_of_its_own():
    with pytest.raises(ValueError, match="for a reference that is another model"):
        Dpo.Options(reference_quantizer="bitsandbytes")
