"""Models with media whose code and processor come with the checkpoint, as Kimi-VL's do: a stand-in
of that interface, written for transformers 4."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tunewright
from media.media_cases import noise
from media.test_recipes import COLOURS, answer, picture, pictures, recipe
from tunewright import RunError, registry
from tunewright.types import LoadedModel
from tunewright_conformance.bench import load_model
from tunewright_hf.media.collation import media_rows
from tunewright_hf.media.expander import Medium
from tunewright_hf.media.foreign import ForeignProcessor, media_processor
from tunewright_hf.media.shapes import Shape

CODE = Path(__file__).parents[1] / "stand_in_media"
AUTO_MAP = {
    "AutoConfig": "configuration_kimi_vl.KimiVLConfig",
    "AutoModel": "modeling_kimi_vl.KimiVLForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_kimi_vl.KimiVLForConditionalGeneration",
}
WORDS = ("<|media_start|>", "<|media_content|>", "<|media_pad|>", "<|media_end|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("kimi") / "Kimi-VL"
    made.mkdir()
    kimi = registry.find("family", "kimi")
    tokenizer = load_model(kimi, "moonlight", made, weights="none").tokenizer
    tokenizer.add_tokens([*WORDS], special_tokens=True)
    tokenizer.save_pretrained(made)
    text = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
    config = {
        "model_type": "kimi_vl",
        "architectures": ["KimiVLForConditionalGeneration"],
        "auto_map": AUTO_MAP,
        "text_config": text,
        "vision_config": {"hidden_size": 32, "patch_size": 14},
        "media_placeholder_token_id": tokenizer.convert_tokens_to_ids("<|media_pad|>"),
        "torch_dtype": "float32",
    }
    (made / "config.json").write_text(json.dumps(config))
    auto = "processing_kimi_vl.KimiVL"
    processor = {"AutoProcessor": f"{auto}Processor", "AutoImageProcessor": f"{auto}ImageProcessor"}
    own = {"auto_map": processor, "image_processor_type": "KimiVLImageProcessor"}
    (made / "preprocessor_config.json").write_text(json.dumps(own))
    for file in CODE.glob("*.py"):
        shutil.copy(file, made)
    save_file(_weights(text), made / "model.safetensors")
    return made


def _weights(text: dict[str, Any]) -> dict[str, torch.Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        language = LlamaForCausalLM(LlamaConfig(**text)).state_dict()
        parts = {"vision_tower": (32, 3 * 14**2), "multi_modal_projector": (64, 4 * 32)}
        found = {f"language_model.{name}": each.clone() for name, each in language.items()}
        for name, shape in parts.items():
            found |= {
                f"{name}.weight": torch.randn(shape) * 0.05,
                f"{name}.bias": torch.zeros(shape[0]),
            }
    return found


def loaded(folder: Path) -> LoadedModel:
    kimi = registry.find("family", "kimi")
    return load_model(kimi, None, folder, model=str(folder), trust_remote_code=True)


def test_its_ids_and_tensors(folder: Path) -> None:
    """As its processor makes them of all media at once; it is asked with one empty image each."""
    found = loaded(folder)
    media = media_processor(found.processor)
    assert isinstance(media, ForeignProcessor) and media.tokens == {"image": "<|media_pad|>"}
    shapes = [Shape("image", width=90, height=60), Shape("image", width=30, height=140)]
    content = [Image.fromarray(noise(n, each.height, each.width)) for n, each in enumerate(shapes)]
    pad = found.tokenizer.convert_tokens_to_ids("<|media_pad|>")
    assert [each.ids for each in media.expansions(shapes)] == [(pad,) * 6, (pad,) * 5]
    tensors = media.tensors([Medium(*each) for each in zip(shapes, content, strict=True)])
    whole = found.processor(images=content, text=["<|media_pad|>" * 2], return_tensors="pt")
    assert whole["input_ids"].shape[1] == 11 and len(tensors.pop("ids")) == 2
    assert tensors.keys() == {"pixel_values", "image_grid_hws"}
    for name, each in tensors.items():
        assert torch.equal(torch.as_tensor(each), torch.as_tensor(whole[name]))
    assert media_rows(found) is not None
    assert set(found.frozen) == {"vision_tower", "multi_modal_projector"}


def test_only_when_it_is_trusted(folder: Path) -> None:
    kimi = registry.find("family", "kimi")
    with pytest.raises(RunError, match="knows no model_type 'kimi_vl'"):
        load_model(kimi, None, folder, model=str(folder))


@pytest.mark.slow
def test_it_learns_from_pictures(folder: Path, tmp_path: Path) -> None:
    asked = recipe(
        tmp_path,
        model=str(folder),
        family={"name": "kimi", "train_projector": True},
        template={
            "name": "moonlight",
            "image_text": "<|media_start|>image<|media_content|><|media_pad|><|media_end|>",
        },
        data=[{"path": str(pictures(tmp_path, 4))}],
        training={"epochs": 14},
    )
    tunewright.train(asked, trust_remote_code=True)
    kimi = registry.find("family", "kimi")
    result = str(tmp_path / "run/model")
    found = load_model(kimi, None, tmp_path, model=result, trust_remote_code=True)
    found.template = found.template or "moonlight"
    for name in COLOURS:
        path = picture(tmp_path / f"new {name}.png", name, 2)
        assert answer(found, "image", path) == f"{name}."
