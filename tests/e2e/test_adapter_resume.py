"""Adapters that are initialised from data, and new tokens: resumed equals uninterrupted, bit for
bit."""

from pathlib import Path

import pytest

from e2e.sharding_setup import DATA, check_resumed
from e2e.sharding_worker import interrupt
from tunewright.run import train

RECIPE = f"""
model: tiny
family: {{name: qwen, tiny_hidden_size: 16, tiny_layers: 2, device: cpu}}
template: chatml
stages:
  - name: sft
    data: [{{path: {DATA}/wren.jsonl}}]
    eval_data: {{held: [{{path: {DATA}/wren.jsonl}}]}}
  - name: dpo
    data: [{{path: {DATA}/wren_pairs.jsonl}}]
    eval_data: {{held: [{{path: {DATA}/wren_pairs.jsonl}}]}}
training:
  precision: fp32
  learning_rate: 3.0e-4
  max_steps: 4
  max_length: 256
  save_steps: 2
  eval_steps: 2
  logging_steps: 1
loggers: [jsonl]
output: nowhere
"""
CELLS = {
    "eva": ["adapter={name: lora, rank: 2, init: eva}"],
    "lora_ga": ["adapter={name: lora, rank: 2, init: lora_ga}"],
    "corda": ["adapter={name: lora, rank: 2, init: corda}"],
    "tokens": ["adapter={name: lora, rank: 2}", "family.new_tokens=[<bird>, wren]"],
    "loftq": ["adapter={name: lora, rank: 2, init: loftq}", "quantizer=bitsandbytes"],
}
IN_CI = ("lora_ga", "tokens")


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [c if c in IN_CI else pytest.param(c, marks=pytest.mark.long) for c in CELLS]
)
def test_resumed_is_uninterrupted(tmp_path: Path, cell: str) -> None:
    recipe, output = tmp_path / "recipe.yaml", tmp_path / cell
    recipe.write_text(RECIPE)
    train(recipe, overrides=[*CELLS[cell], f"output={output}"])
    interrupt(output)
    train(recipe, overrides=[*CELLS[cell], f"output={output}"], resume=True)
    check_resumed(output)
