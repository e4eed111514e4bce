"""LLaMA-Factory's files: folders of them, its version 1, and what its page has saved."""

from pathlib import Path

import pytest
import yaml

from imports.llamafactory_setup import LEAST, MODEL, folder
from tunewright_import import llamafactory
from tunewright_import.files import PROGRAMS, read, translate_folder
from tunewright_import.translation import Refused

__all__ = ["folder"]


def test_files_of_other_programs_are_named() -> None:
    with pytest.raises(Refused, match="accelerate launch"):
        llamafactory.translate({"compute_environment": "LOCAL_MACHINE"}, Path("a.yaml"), Path())
    with pytest.raises(Refused, match="names no model"):
        llamafactory.translate({"<|svg|>": "a tag"}, Path("a.yaml"), Path())


def test_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "configs"
    source.mkdir()
    (source / "good.yaml").write_text(yaml.safe_dump(LEAST))
    (source / "kt.yaml").write_text(yaml.safe_dump({**LEAST, "use_kt": True}))
    (source / "broken.yaml").write_text("a: [")
    translate_folder("llamafactory", source, folder / "recipes")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["broken.yaml", "good.yaml", "kt.yaml"]
    assert "refused" in lines[0]
    assert "KTransformers" in lines[2]
    assert [path.name for path in (folder / "recipes").iterdir()] == ["good.yaml"]


def test_v1(folder: Path) -> None:
    sets = {"greetings": {"path": "data/greetings.json", "source": "local", "size": 2}}
    (folder / "data/v1.yaml").write_text(yaml.safe_dump(sets))
    config = {
        "model": "Qwen/Qwen3-4B",
        "peft_config": {"name": "lora", "r": 16, "target_modules": "all"},
        "dist_config": {"name": "fsdp2", "dcp_path": None},
        "train_dataset": "data/v1.yaml",
        "micro_batch_size": 2,
        "batching_strategy": "padding_free",
        "output_dir": "out",
    }
    result = llamafactory.translate(config, folder / "a.yaml", Path())
    assert result.recipe["adapter"] == {"name": "lora", "rank": 16}
    assert result.recipe["accelerators"] == ["fsdp"]
    assert result.recipe["data"] == [{"path": "data/greetings.json", "limit": 2}]
    assert result.recipe["stage"] == {"name": "sft", "packing": True}


def test_saved_page(folder: Path) -> None:
    page = {
        "top.model_name": "Qwen3-4B-Instruct-2507",
        "top.finetuning_type": "lora",
        "top.template": "qwen3_nothink",
        "top.booster": "liger_kernel",
        "top.quantization_bit": "none",
        "top.rope_scaling": "none",
        "train.training_stage": "Supervised Fine-Tuning",
        "train.dataset": ["greetings"],
        "train.dataset_dir": "data",
        "train.learning_rate": "5e-5",
        "train.compute_type": "bf16",
        "train.batch_size": 2,
        "train.lora_rank": 4,
        "train.galore_rank": 64,
        "train.use_galore": False,
        "train.neftune_alpha": 0,
        "train.freeze_trainable_layers": 2,
        "train.extra_args": "{}",
        "train.ds_stage": "none",
    }
    recipe = llamafactory.translate(page, Path("page.yaml"), Path()).recipe
    assert recipe["model"] == MODEL
    assert recipe["adapter"]["rank"] == 4
    assert recipe["training"]["learning_rate"] == 5e-5
    assert recipe["training"]["per_device_train_batch_size"] == 2
    assert recipe["training"]["precision"] == "bf16"
    assert recipe["accelerators"] == ["liger"]
    assert "optimizer" not in recipe
    with pytest.raises(Refused, match="no listed checkpoint"):
        llamafactory.translate({"top.model_name": "Nowhere-1B"}, Path("page.yaml"), Path())


def test_files_are_read_safely(folder: Path) -> None:
    (folder / "evil.yaml").write_text("!!python/object/apply:os.system ['touch owned']")
    with pytest.raises(Exception, match="cannot be read"):
        read(folder / "evil.yaml")
    assert not (folder / "owned").exists()
    assert set(PROGRAMS) == {"axolotl", "llamafactory", "swift", "trl"}
