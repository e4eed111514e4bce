"""Base class PeftAdapter: a method of PEFT is Options and one function, whatever sort of method."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from loading_setup import Listener, apply, edit_json, load, logits, train, trainable
from pydantic import Field
from torch import nn

from tunewright import RunError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import (
    FLAG,
    NAMES_OR_PATTERN,
    PROMPT,
    RANK,
    number,
    one_of,
    whole,
)


class Ia3(PeftAdapter):
    """Scales of activations."""

    peft_type = "IA3"
    config_fields: ClassVar = {"feedforward_modules": NAMES_OR_PATTERN, "init_ia3_weights": FLAG}

    class Options(PeftOptions):
        targets: list[str] = Field(["k_proj", "v_proj", "down_proj"])

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.IA3Config(
            target_modules=self.targets(request.loaded),
            feedforward_modules=["down_proj"],
            **self.common(request),
        )


class Vera(PeftAdapter):
    """Shared random projections."""

    peft_type = "VERA"
    config_fields: ClassVar = {
        "r": whole(1, 4096),
        "projection_prng_key": whole(0, 2**31),
        "d_initial": number(0, 10),
        "vera_dropout": number(0, 0.99),
        "save_projection": FLAG,
        "init_weights": FLAG,
        "bias": one_of("none"),
    }

    class Options(PeftOptions):
        targets: list[str] = Field(["q_proj"])

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.VeraConfig(
            r=16, target_modules=self.targets(request.loaded), **self.common(request)
        )


class Oft(PeftAdapter):
    """Orthogonal transforms."""

    peft_type = "OFT"
    config_fields: ClassVar = {
        "r": whole(0, 4096),
        "oft_block_size": whole(0, 4096),
        "use_cayley_neumann": FLAG,
        "init_weights": FLAG,
        "bias": one_of("none"),
    }

    class Options(PeftOptions):
        pass

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.OFTConfig(
            oft_block_size=8,
            r=0,
            use_cayley_neumann=False,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )


class Hra(PeftAdapter):
    """Householder reflections."""

    peft_type = "HRA"
    config_fields: ClassVar = {"r": RANK, "apply_GS": FLAG, "init_weights": FLAG}

    class Options(PeftOptions):
        pass

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.HRAConfig(
            r=4, target_modules=self.targets(request.loaded), **self.common(request)
        )


class LnTuning(PeftAdapter):
    """Norms: other modules than linear layers."""

    peft_type = "LN_TUNING"

    class Options(PeftOptions):
        pass

    def candidates(self, loaded: LoadedModel) -> list[str]:
        return [name for name, _ in loaded.model.named_modules() if name.endswith("norm")]

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.LNTuningConfig(
            target_modules=self.targets(request.loaded), **self.common(request)
        )


class PromptTuning(PeftAdapter):
    """Virtual tokens: no targets, nothing to merge."""

    peft_type = "PROMPT_TUNING"
    config_fields: ClassVar = {**PROMPT, "prompt_tuning_init": one_of("RANDOM")}

    class Options(PeftOptions):
        pass

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.PromptTuningConfig(num_virtual_tokens=4, **self.common(request))


ADAPTERS = [Ia3, Vera, Oft, Hra, LnTuning, PromptTuning]


def made(kind: type[PeftAdapter], **options: Any) -> Any:
    return kind(kind.Options(**options))


def tokens(loaded: LoadedModel) -> torch.Tensor:
    """Logits of the six tokens: virtual ones come before them."""
    return logits(loaded)[:, -6:]


@pytest.mark.parametrize("kind", ADAPTERS)
def test_trained_saved_restored_merged(
    run: Listener, tmp_path: Path, kind: type[PeftAdapter]
) -> None:
    plugin, original = made(kind), tokens(load(run))
    loaded = apply(run, plugin)
    assert loaded.saves == "adapter"
    assert loaded.trained == trainable(loaded) and loaded.trained
    train(loaded, steps=3)
    learned = tokens(loaded)
    assert not torch.allclose(learned, original, atol=1e-3)
    loaded.model.save_pretrained(tmp_path, save_embedding_layers=False)
    again = apply(run, plugin, adapter_path=tmp_path, trainable=False)
    assert torch.allclose(tokens(again), learned, atol=1e-5)
    assert not trainable(again) and again.trained == set()
    further = apply(run, plugin, adapter_path=tmp_path)
    assert further.trained == loaded.trained
    if kind is PromptTuning:
        with pytest.raises(RunError, match="PROMPT_TUNING cannot be merged"):
            plugin.merge(again)
    else:
        merged = plugin.merge(again)
        assert merged.saves == "model"
        assert merged.model.state_dict().keys() == load(run).model.state_dict().keys()
        assert torch.allclose(tokens(merged), learned, atol=1e-5)


def test_other_candidates_than_linear_layers(run: Listener) -> None:
    loaded = apply(run, made(LnTuning, exclude=["layers.0"]))
    assert {name for name in loaded.trained or () if "ln_tuning_layers" not in name} == set()
    assert any("model.norm" in name for name in loaded.trained or ())
    assert not any("layers.0." in name for name in loaded.trained or ())


def test_linear_layers_of_a_further_class(run: Listener) -> None:
    """LoadedModel.linear_types: what a family or quantizer has in place of nn.Linear."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_features = self.out_features = 64

    loaded = load(run)
    loaded.model.model.layers[0].self_attn.extra = Packed()
    assert "model.layers.0.self_attn.extra" not in made(Oft).candidates(loaded)
    loaded.linear_types = (Packed,)
    assert "model.layers.0.self_attn.extra" in made(Oft).candidates(loaded)


def test_each_type_has_its_own_fields(run: Listener, tmp_path: Path) -> None:
    loaded = apply(run, made(Hra))
    loaded.model.save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(RunError, match="is an adapter of type 'HRA', not OFT"):
        apply(run, made(Oft), adapter_path=tmp_path)
    edit_json(tmp_path / "adapter_config.json", apply_GS="yes")
    with pytest.raises(RunError, match=r"apply_GS: is 'yes', expected true or false"):
        apply(run, made(Hra), adapter_path=tmp_path)


# ---- what is imported ----------------------------------------------------------------------------

PLAIN_THEN_QUANTIZED = """
import json, sys, torch
from tunewright.check import resolve
from tunewright.run import Run

recipe = {
    "model": "tiny", "family": {"name": "qwen", "device": "cpu"}, "template": "qwen3",
    "stage": "sft", "loggers": [], "data": [{"path": "none.jsonl"}], "output": "none",
    "adapter": {"name": "lora", "rank": 4},
}

def load(**more):
    run = Run(resolve(recipe | more))
    return run, run.load()

run, loaded = load()
found = {"after": "bitsandbytes" in sys.modules}
run.plugin("adapter").merge(loaded)
found["merged"] = "bitsandbytes" in sys.modules
for bits in (4, 8):
    run, loaded = load(quantizer={"name": "bitsandbytes", "bits": bits})
    layer = loaded.model.base_model.model.model.layers[0].self_attn.q_proj
    found[str(bits)] = type(layer).__module__ + " " + type(layer.base_layer).__name__
    loaded.model(input_ids=torch.arange(12).reshape(2, 6)).logits.square().mean().backward()
    found[f"{bits} trains"] = layer.lora_B.default.weight.grad.abs().sum().item() > 0
from transformers.utils import is_bitsandbytes_available
import peft.import_utils
found["seen"] = is_bitsandbytes_available() and peft.import_utils.is_bnb_4bit_available()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_bitsandbytes_is_imported_for_its_quantizer_only() -> None:
    """PEFT would import it for every adapter. A quantized model in the same process gets PEFT's own
    layers for it all the same."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_THEN_QUANTIZED],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "after": False,
        "merged": False,
        "4": "peft.tuners.lora.bnb Linear4bit",
        "4 trains": True,
        "8": "peft.tuners.lora.bnb Linear8bitLt",
        "8 trains": True,
        "seen": True,
    }


def test_base_class_is_light() -> None:
    code = (
        "import sys, tunewright_hf.models.peft; "
        "print([n for n in ('torch', 'transformers', 'peft', 'bitsandbytes') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
