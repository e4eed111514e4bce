"""LLaMA-Factory's configurations, key by key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from imports.llamafactory_setup import LEAST, MODEL, folder
from shared import SHARED
from tunewright import check
from tunewright_import import llamafactory
from tunewright_import.files import translate_file
from tunewright_import.translation import Refused, Translation

__all__ = ["folder"]


def translated(**keys: Any) -> Translation:
    return llamafactory.translate({**LEAST, **keys}, Path("config.yaml"), Path())


def field(result: Translation, place: str) -> Any:
    found: Any = result.recipe
    for name in place.split("."):
        found = found[name] if isinstance(found, dict) else None
    return found


def test_the_least(folder: Path) -> None:
    result = translated()
    assert result.recipe == {
        "model": MODEL,
        "family": "qwen",
        "adapter": {"name": "lora", "rank": 8, "alpha": 16},
        "data": [{"dataset_info": "data", "name": "greetings"}],
        "stage": "sft",
        "training": {
            "epochs": 3.0,
            "lr_scheduler_type": "linear",
            "activation_checkpointing": True,
            "batching": "random",
            "save_steps": 500,
        },
        "output": "saves/out",
    }
    assert not result.notes


@pytest.mark.parametrize(
    ("keys", "place", "expected"),
    [
        ({"cutoff_len": 512}, "training.max_length", 512),
        ({"warmup_ratio": 0.1}, "training.warmup_steps", 0.1),
        ({"warmup_steps": 20, "warmup_ratio": 0.1}, "training.warmup_steps", 20),
        ({"dataloader_num_workers": 4}, "training.dataloader_workers", 4),
        ({"max_steps": 7}, "training.max_steps", 7),
        ({"pure_bf16": True, "bf16": True}, "training.precision", "pure_bf16"),
        ({"disable_gradient_checkpointing": True}, "training.activation_checkpointing", None),
        ({"early_stopping_steps": 2}, "training.early_stopping_patience", 2),
        ({"lr_scheduler_kwargs": {"min_lr": 1e-6}}, "scheduler.min_lr", 1e-6),
        ({"val_size": 0.1}, "dataset.validation", 0.1),
        ({"val_size": 50}, "dataset.validation", 50),
        ({"mix_strategy": "interleave_over"}, "dataset.stop", "all"),
        ({"disable_shuffling": True}, "dataset.order", "given"),
        ({"mask_history": True}, "template.train_on", "last"),
        ({"default_system": "Be brief."}, "template.system", "Be brief."),
        ({"finetuning_type": "full"}, "adapter", "full"),
        ({"finetuning_type": "freeze"}, "adapter.trainable_layers", 2),
        ({"finetuning_type": "oft", "oft_block_size": 16}, "adapter.block_size", 16),
        ({"lora_target": "q_proj,v_proj"}, "adapter.targets", ["q_proj", "v_proj"]),
        ({"additional_target": "embed_tokens"}, "adapter.modules_to_save", ["embed_tokens"]),
        ({"pissa_init": True}, "adapter.init", "pissa_niter_16"),
        ({"quantization_bit": 4}, "quantizer.bits", 4),
        ({"quantization_bit": 3, "quantization_method": "hqq"}, "quantizer.name", "hqq"),
        ({"optim": "paged_adamw_8bit"}, "optimizer.paged", True),
        ({"adam_beta2": 0.95}, "optimizer.beta2", 0.95),
        ({"use_galore": True, "galore_layerwise": True}, "training.max_grad_norm", 0),
        ({"use_badam": True}, "optimizer.switch_mode", "ascending"),
        ({"packing": True}, "stage.packing", True),
        ({"use_dft_loss": True}, "stage.loss", "dft"),
        ({"stage": "pt", "packing": False}, "stage.packing", False),
        ({"stage": "rm"}, "stage", "reward"),
        ({"stage": "dpo", "pref_loss": "orpo", "pref_beta": 0.2}, "stage.beta", 0.2),
        ({"stage": "dpo", "pref_loss": "simpo"}, "stage.gamma", 0.5),
        ({"stage": "dpo", "pref_bco_weight": 0.2}, "stage.loss.bco_pair", 0.2),
        ({"stage": "kto", "kto_rejected_weight": 2.0}, "stage.undesirable_weight", 2.0),
        ({"stage": "ppo", "reward_model": "saves/rm"}, "stage.kl_target", 6.0),
        ({"flash_attn": "disabled"}, "family.attention", "eager"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_keys(keys: dict[str, Any], place: str, expected: Any) -> None:
    try:
        assert field(translated(**keys), place) == expected
    except KeyError:
        assert expected is None


def test_lists_of_plugins() -> None:
    result = translated(
        flash_attn="fa2", neftune_noise_alpha=5, enable_liger_kernel=True, report_to="wandb"
    )
    assert result.recipe["accelerators"] == [
        {"name": "flash_attention", "version": 2},
        "liger",
        {"name": "neftune", "alpha": 5},
    ]
    assert result.recipe["loggers"] == ["console", "jsonl", "plot", "card", "wandb"]


def test_deepspeed_is_read(folder: Path) -> None:
    def read(**zero: Any) -> Any:
        (folder / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
        return translated(deepspeed="ds.json")

    here, there = {"device": "cpu"}, {"device": "nvme"}
    for zero, options in (
        ({"stage": 2}, {"stage": 2}),
        ({"stage": 3, "offload_optimizer": here}, {"stage": 3, "offload": "optimizer"}),
        (
            {"stage": 3, "offload_optimizer": here, "offload_param": here},
            {"stage": 3, "offload": "all"},
        ),
    ):
        result = read(**zero)
        assert result.recipe["accelerators"] == [{"name": "deepspeed", **options}]
        assert not result.notes
    result = read(stage=3, offload_optimizer=there)
    assert result.recipe["accelerators"] == [{"name": "deepspeed", "stage": 3}]
    assert [note.key for note in result.notes] == ["deepspeed: offload_optimizer"]
    assert [note.kind for note in translated(deepspeed="gone.json").notes] == ["missing"]


def test_nothing_is_dropped() -> None:
    result = translated(use_unsloth=True, plot_loss=True, fp8=False, no_such_key=1, lora_rnk=4)
    said = {note.key: (note.kind, note.text) for note in result.notes}
    assert said["use_unsloth"][0] == "missing"
    assert said["plot_loss"][0] == "unneeded"
    assert said["fp8"] == ("off", "")
    assert said["no_such_key"] == ("missing", "is no known key")
    assert "lora_rank" in said["lora_rnk"][1]


def test_new_tokens_and_shifted_attention() -> None:
    result = translated(add_tokens="<plan>,<done>", shift_attn=True)
    assert result.recipe["family"]["new_tokens"] == ["<plan>", "<done>"]
    assert result.recipe["accelerators"] == ["longlora"]


def test_every_documented_key_has_a_rule() -> None:
    facts = SHARED / "field/llamafactory-arguments.md"
    if not facts.is_file():
        pytest.skip("the list of LLaMA-Factory's arguments is not here")
    text = facts.read_text("utf-8").partition("\n## Model\n")[2].partition("\n## Environment")[0]
    names = set(re.findall(r"^\| `?([a-z0-9_]+)`? \|", text, re.MULTILINE)) - {"name"}
    assert len(names) > 300
    refused = {"adapter_name_or_path", "mixture_of_depths", "use_asft_loss"}
    foreign = {"use_kt", "use_hyper_parallel", "pipeline_model_parallel_size", "export_dir"}
    talking = {"export_quantization_bit", "export_quantization_dataset", "infer_backend"}
    talking |= {"export_quantization_nsamples", "export_quantization_maxlen", "export_size"}
    table = names - refused - foreign - talking - {"do_predict"}
    result = translated(**{name: None for name in table if name not in LEAST})
    unknown = [note.key for note in result.notes if "no known key" in note.text]
    assert not unknown


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"use_kt": True}, "KTransformers"),
        ({"dataset": "gone"}, "'gone', which data/dataset_info.json has not"),
        ({"dataset_dir": "REMOTE:a/b"}, "download a/b"),
        ({"stage": "dpo", "pref_loss": "kto_pair"}, "kto_pair"),
        ({"optim": "adagrad"}, "adagrad"),
        ({"oft_rank": 4, "finetuning_type": "oft"}, "block_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=re.escape(reason)):
        translated(**keys)


def test_chat_and_export_become_commands() -> None:
    keys = {"model_name_or_path": MODEL, "adapter_name_or_path": "saves/out", "template": "qwen3"}
    for more, command in (
        ({}, "tunewright chat saves/out"),
        ({"export_dir": "merged"}, "tunewright export saves/out --to safetensors --output merged"),
    ):
        assert llamafactory.translate(keys | more, Path("a.yaml"), Path()).command == command
    bare = {"model_name_or_path": MODEL, "template": "qwen3"}
    assert (
        llamafactory.translate(bare, Path("a.yaml"), Path()).command == f"tunewright chat {MODEL}"
    )
    with pytest.raises(Refused, match=r"exports .* as it is"):
        llamafactory.translate(bare | {"export_dir": "merged"}, Path("a.yaml"), Path())


def test_quantized_and_combined_exports() -> None:
    keys = {"model_name_or_path": "saves/merged", "template": "qwen3", "export_dir": "to"}
    quantized = keys | {"export_quantization_bit": 4, "export_quantization_dataset": "a.jsonl"}
    found = llamafactory.translate(quantized, Path("a.yaml"), Path())
    command = "tunewright export saves/merged --to gptq --output to bits=4 data=a.jsonl"
    assert found.command == command
    adapters = keys | {"model_name_or_path": MODEL, "adapter_name_or_path": "saves/a,saves/b"}
    found = llamafactory.translate(adapters, Path("a.yaml"), Path())
    assert found.command.endswith("--output to --adapter saves/a --adapter saves/b")
    base = quantized | {"model_name_or_path": MODEL}
    with pytest.raises(Refused, match="what a recipe trained"):
        llamafactory.translate(base, Path("a.yaml"), Path())


def test_the_written_recipe_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump({**LEAST, "learning_rate": "1e-4"}))
    to = folder / "recipes/one.yaml"
    translate_file("llamafactory", folder / "config.yaml", to)
    recipe = check.resolve(to).recipe
    assert recipe.training.learning_rate == 1e-4
    assert recipe.data == [{"dataset_info": "../data", "name": "greetings"}]
    assert capsys.readouterr().out.startswith("written: ")
