"""MiniCPM-V 2.6 through code beside its weights: a stand-in of that code's interface, whose model
takes one dict."""

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
from media.test_recipes import COLOURS, QUESTION, picture, pictures, recipe
from tunewright import registry
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright.run import open_run
from tunewright.types import Conversation, LoadedModel, MediaPart, Message, TextPart
from tunewright_conformance.bench import load_model
from tunewright_hf.media.collation import media_rows
from tunewright_hf.media.expander import MediaProcessor, Medium
from tunewright_hf.media.shapes import Shape

CODE = Path(__file__).parents[1] / "stand_in_minicpmv"
MODEL = "modeling_minicpmv.MiniCPMV"
AUTO_MAP = {"AutoConfig": "configuration_minicpm.MiniCPMVConfig", "AutoModel": MODEL}
WORDS = ("<unk>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>")
SHAPES = [Shape("image", width=90, height=60), Shape("image", width=40, height=40)]
OPTIONS = {"system": "You are a helpful assistant.", "image_text": "<image>\n"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("minicpm") / "MiniCPM-V-2_6"
    made.mkdir()
    qwen = registry.find("family", "qwen")
    tokenizer = load_model(qwen, "qwen2", made, weights="none").tokenizer
    tokenizer.add_tokens([*WORDS], special_tokens=True)
    tokenizer.save_pretrained(made)
    text = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {
        "model_type": "minicpmv",
        "architectures": ["MiniCPMV"],
        "auto_map": AUTO_MAP | {"AutoModelForCausalLM": MODEL},
        "torch_dtype": "float32",
        "tie_word_embeddings": False,
        **text,
    }
    (made / "config.json").write_text(json.dumps(config))
    own = {
        "AutoProcessor": "processing_minicpmv.MiniCPMVProcessor",
        "AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor",
    }
    (made / "preprocessor_config.json").write_text(
        json.dumps({"auto_map": own, "image_processor_type": "MiniCPMVImageProcessor"})
    )
    for file in CODE.glob("*.py"):
        shutil.copy(file, made)
    save_file(_weights(text), made / "model.safetensors")
    return made


def _weights(text: dict[str, Any]) -> dict[str, torch.Tensor]:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        language = Qwen2ForCausalLM(Qwen2Config(**text, tie_word_embeddings=False)).state_dict()
        found = {f"llm.{name}": each.clone() for name, each in language.items()}
        for name, shape in {"vpm": (32, 3 * 14**2), "resampler": (4 * 64, 32)}.items():
            found |= {f"{name}.weight": torch.randn(shape) * 0.05}
            found |= {f"{name}.bias": torch.zeros(shape[0])}
    return found


def loaded(folder: Path) -> LoadedModel:
    minicpm = registry.find("family", "minicpm")
    return load_model(minicpm, None, folder, model=str(folder), trust_remote_code=True)


def media(count: int) -> list[Medium]:
    made = [Image.fromarray(noise(n, each.height, each.width)) for n, each in enumerate(SHAPES)]
    return [Medium(*each) for each in zip(SHAPES, made, strict=True)][:count]


def test_its_ids(folder: Path) -> None:
    """As its processor writes them: images are numbered, and large ones have slices."""
    found = loaded(folder)
    asked = MediaProcessor(found.processor)
    assert asked.tokens == {"image": "<image>"} and not asked._independent
    whole = found.processor.own(
        ["(<image>./</image>)(<image>./</image>)"], [[each.content for each in media(2)]]
    )
    ids = [each.ids for each in asked.expansions(SHAPES)]
    assert [*ids[0], *ids[1]] == whole["input_ids"][0].tolist()
    assert found.tokenizer.decode(ids[1]).startswith("<image_id>1</image_id><image>")
    assert ids == asked.tensors(media(2))["ids"]
    assert set(found.frozen) == {"vpm", "resampler"}


def test_its_model_takes_tensors(folder: Path) -> None:
    """Rows of two, no and one image give what the model's own `forward` gives for each alone."""
    found = loaded(folder)
    model, rows = found.model.eval(), media_rows(found)
    assert rows is not None
    made: list[dict[str, Any]] = []
    for count in (2, 0, 1):
        given = media(count)
        ids = rows.media.tensors(given)["ids"] if given else []
        made.append({"input_ids": [5, *(i for each in ids for i in each), 6, 7], "media": given})
    longest = max(len(each["input_ids"]) for each in made)
    ids = torch.tensor(
        [each["input_ids"] + [0] * (longest - len(each["input_ids"])) for each in made]
    )
    mask = torch.tensor(
        [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in made]
    )
    tensors = rows.joined(rows.tensors(made))
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask, **tensors).logits
        for each, logits in zip(made, together, strict=True):
            own, length = torch.tensor([each["input_ids"]]), len(each["input_ids"])
            images = found.processor.image_processor([[one.content for one in each["media"]]])
            data = dict(images, input_ids=own, position_ids=torch.arange(length)[None])
            data["image_bound"] = [model._bounds(own[0])]
            alone = type(model).__mro__[2].forward(model, data).logits[0]
            assert torch.allclose(alone, logits[:length], atol=1e-5)


@pytest.mark.slow
def test_it_learns_from_pictures(folder: Path, tmp_path: Path) -> None:
    asked = recipe(
        tmp_path,
        model=str(folder),
        family={"name": "minicpm", "train_projector": True},
        template={"name": "qwen"} | OPTIONS,
        data=[{"path": str(pictures(tmp_path, 4))}],
        training={"epochs": 14},
    )
    tunewright.train(asked, trust_remote_code=True)
    result = tmp_path / "run/model"
    assert (result / "modeling_minicpmv.py").is_file()
    run = open_run(tmp_path / "run", trust_remote_code=True)
    with run.call("engine", "open_engine", EngineRequest()) as engine:
        for name in COLOURS:
            path = picture(tmp_path / f"new {name}.png", name, 2)
            talk = [Message("user", [MediaPart("image", str(path)), TextPart(QUESTION)])]
            request = GenerateRequest(Conversation(talk), temperature=0, max_new_tokens=6)
            assert "".join(piece.text for piece in answers(engine, request)) == f"{name}."
