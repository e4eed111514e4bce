"""`tunewright plan`: does it fit, what would make it fit, and how long does it take."""

import json

import pytest
import typer
from transformers import LlamaConfig
from typer.testing import CliRunner

from tunewright import RecipeError
from tunewright_hf.planning.devices import devices, find_device
from tunewright_hf.planning.plan import RUNTIME
from tunewright_plan import command

RECIPE = """\
model: tiny
family: {name: llama, tiny_hidden_size: 64}
data:
  - {path: rows.jsonl}
stage: sft
training: {max_length: 256, per_device_train_batch_size: 4, batching: random, precision: bf16}
output: runs/plan
"""
SMALL = """\
[small]
memory_gib = {memory}
tflops = 0.001
price_per_hour = 3.6
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "devices.toml").write_text(SMALL.format(memory=1))
    rows = [
        {
            "messages": [
                {"role": "user", "content": "word " * number},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for number in range(1, 13)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def called(*arguments):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["recipe.yaml", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_does_not_fit_is_told_what_would(folder):
    [plan] = json.loads(called("--json", "--device", "small", "--device-file", "devices.toml"))
    assert plan["fits"] is True and not plan["suggestions"]
    less = RUNTIME + 0.7 * (plan["peak"] - RUNTIME)
    (folder / "devices.toml").write_text(SMALL.format(memory=less / 2**30))
    [plan] = json.loads(called("--json", "--device", "small", "--device-file", "devices.toml"))
    assert plan["fits"] is False
    assert plan["peak"] == sum(plan["memory"].values())
    assert plan["rows"] == 4
    assert plan["steps"] == 3  # of 4 rows
    assert plan["cost"] == pytest.approx(plan["seconds"] / 1000)
    peaks = [plan["peak"], *(each["plan"]["peak"] for each in plan["suggestions"])]
    assert peaks == sorted(peaks, reverse=True)
    assert plan["suggestions"][-1]["plan"]["fits"]
    # the last suggestion is what a plan with its changes says
    overrides = plan["suggestions"][-1]["overrides"]
    arguments = ["--json", "--device", "small", "--device-file", "devices.toml", *overrides]
    [again] = json.loads(called(*arguments))
    assert again["fits"]
    assert again["peak"] == plan["suggestions"][-1]["plan"]["peak"]
    assert not again["suggestions"]


def test_a_config_without_weights_tokenizer_or_data_is_enough(folder):
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=6, vocab_size=256)
    config.save_pretrained(folder / "big")
    (folder / "rows.jsonl").unlink()
    said = called("--config", "big", "--device", "h100-80g", "--no-data")
    assert "Stage 1, sft on h100-80g" in said
    assert "4 rows, 1,024 tokens" in said
    assert "fits in 79.6 GiB" in said and "yes" in said
    assert "no data is read" in said


def test_stages_that_draw_their_rows_have_them_at_full_length(folder):
    drawn = ["stage=grpo", "stage.rewards=[{name: length, target: 9}]", "--device", "cpu"]
    short, long = (
        json.loads(called("--json", "--no-data", *drawn, f"stage.max_new_tokens={length}"))[0]
        for length in (8, 40)
    )
    assert long["tokens"] - short["tokens"] == 32 * 4 * 8  # prompts, completions of each
    assert long["peak"] > short["peak"]
    assert any("max_new_tokens" in note for note in long["notes"])
    assert long["seconds"] is None


def test_devices_of_the_users_own(folder):
    own = devices(folder / "devices.toml")["small"]
    assert (own.flops, own.price) == (1e9, 3.6)
    assert "h100-80g" in devices(folder / "devices.toml")
    with pytest.raises(RecipeError, match="did you mean 'h100-80g'"):
        find_device("h100-80")
    (folder / "devices.toml").write_text("[mine]\nmemory = 3")
    with pytest.raises(RecipeError, match=r"\[mine\] is no device.*memory_gib"):
        devices(folder / "devices.toml")


def test_a_probe_takes_real_steps(folder):
    [plan] = json.loads(called("--json", "--device", "cpu", "--probe"))
    assert "overhead" not in plan["memory"]
    assert plan["probe"]["seconds"] > 0
    assert plan["step_seconds"] == plan["probe"]["seconds"]
    assert plan["seconds"] == pytest.approx(3 * plan["probe"]["typical_seconds"])
    assert not (folder / "runs").exists()
