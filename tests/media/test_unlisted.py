"""A checkpoint with media under a name that no list has: its template has a place for them."""

from pathlib import Path
from typing import Any

import pytest

from media.media_cases import (
    AUDIO,
    IMAGES,
    VIDEOS,
    audio,
    families_with_media,
    image,
    parts,
    text,
    user,
    video,
)
from tunewright import RowError, check, registry
from tunewright.run import Run
from tunewright.types import Conversation, LoadedModel, Message, TemplateRequest
from tunewright_conformance.subjects import package_of
from tunewright_hf.media.expander import MediaProcessor
from tunewright_hf.models.twins import specs
from tunewright_hf.tokenization.encode import Tokeniser

#: those whose template is their checkpoint's own, and stand-ins for code on the hub
OWN = {"kimi_k25", "minicpmv4_6", "minicpmv4_7", "minicpmv"}
TWINS = [(entry.name, twin) for entry, twin in families_with_media()]


def saved(folder: Path, family: str, twin: str, chat_template: str | None) -> LoadedModel:
    """Config, tokenizer and processor of a twin, as a checkpoint's folder; and the twin."""
    loaded = load({"model": "tiny", "family": {"name": family, "tiny_variant": twin}}, folder)
    entry = registry.find("family", family)
    plugin: Any = registry.load(entry)
    spec = specs(package_of(entry))[twin]
    made = plugin(plugin.Options())
    config = made._own_config(made.tiny_config(spec, loaded.tokenizer, 64, 2))
    config.save_pretrained(folder)
    loaded.tokenizer.chat_template = loaded.processor.chat_template = chat_template
    loaded.processor.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return loaded


def load(recipe: dict[str, Any], folder: Path) -> LoadedModel:
    whole = {"data": [{"path": "rows.jsonl"}], "stages": [{"name": "sft"}]} | recipe
    run = Run(check.resolve(whole | {"output": str(folder / "run")}))
    return run.load(weights="none")


def template_of(loaded: LoadedModel) -> Any:
    found: Any = registry.load(registry.find("template", str(loaded.template)))
    return found(found.Options(**loaded.template_options), loaded.template)


def talk_of(loaded: LoadedModel) -> list[Message]:
    """A question about each kind of media that the model takes."""
    kinds = MediaProcessor(loaded.processor).tokens
    made = {"image": image("wide"), "video": video("short"), "audio": audio("word")}
    if loaded.template == "paligemma":
        kinds = {"image": ""}
    asked = user(*(made[kind] for kind in kinds), text("What is it?"))
    return [asked, Message("assistant", "A house.")]


def rendered(loaded: LoadedModel, template: Any = None) -> Any:
    template = template or template_of(loaded)
    talk = talk_of(loaded)
    tokeniser = Tokeniser(loaded.tokenizer, template.info)
    request = TemplateRequest(
        Conversation(talk), special_tokens=tokeniser.special_tokens, tokenizer=loaded.tokenizer
    )
    shapes = [(IMAGES | VIDEOS | AUDIO)[part.path][0] for part in parts(talk)]
    return MediaProcessor(loaded.processor).expand(template.format_template(request), shapes)


@pytest.mark.parametrize(("family", "twin"), [each for each in TWINS if each[1] not in OWN])
def test_without_a_chat_template(family: str, twin: str, tmp_path: Path) -> None:
    """As that of a base model: by its model type."""
    own = saved(tmp_path, family, twin, None)
    found = load({"model": str(tmp_path), "family": family}, tmp_path)
    assert (found.template, found.template_options) == (own.template, own.template_options)
    assert rendered(found) == rendered(own)


@pytest.mark.parametrize(
    ("family", "twin"),
    [("qwen", "qwen2_vl"), ("gemma", "paligemma"), ("chatglm", "glm4v_moe"), ("kimi", "kimi_k25")],
)
def test_with_the_template_that_it_was_trained_with(family: str, twin: str, tmp_path: Path) -> None:
    """The form of boxes, which a chat template does not tell, is there too."""
    tiny = load({"model": "tiny", "family": {"name": family, "tiny_variant": twin}}, tmp_path)
    own = saved(tmp_path, family, twin, template_of(tiny).chat_template())
    found = load({"model": str(tmp_path), "family": family}, tmp_path)
    assert (found.template, found.template_options) == (own.template, own.template_options)


@pytest.mark.parametrize(
    ("name", "family", "twin", "template"),
    [
        ("qwen2_5_vl", "qwen", "qwen2_5_vl", "auto"),
        ("qwen3_vl", "qwen", "qwen3_vl", "auto"),
        ("qwen3_5_think", "qwen", "qwen3_5_media", "qwen3_5"),
        ("qwen3_5_nothink", "qwen", "qwen3_5_media", "qwen3_5_nothink"),
        ("qwen3_6", "qwen", "qwen3_5_moe_media", "qwen3_6"),
        ("gemma3", "gemma", "gemma3_media", "gemma3"),
        ("smolvlm", "smollm", "smolvlm", "auto"),
        ("llava_next", "llava", "llava_next_mistral", "auto"),
        ("glm4moe", "chatglm", "glm4v_moe", "glm4_moe"),
        ("llama3_1", "llama", "mllama", "llama3_1"),
    ],
)
def test_with_its_makers_template(
    name: str, family: str, twin: str, template: str, tmp_path: Path
) -> None:
    """TRL's package has copies. Those of text models stand for a tokenizer's own template beside
    the processor's."""
    trl = pytest.importorskip("trl", reason="TRL has copies of checkpoints' templates")
    source = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    saved(tmp_path, family, twin, source)
    found = load({"model": str(tmp_path), "family": family}, tmp_path)
    assert found.template == template
    whole = rendered(found)
    assert len(whole.media) == len(parts(talk_of(found)))


def test_a_named_template_has_a_place_too(tmp_path: Path) -> None:
    own = saved(tmp_path, "qwen", "qwen2_vl", None)
    recipe = {"model": str(tmp_path), "family": "qwen", "template": "chatml"}
    found = load(recipe, tmp_path)
    assert found.template == "chatml"
    assert found.template_options["image_text"] == own.template_options["image_text"]


@pytest.mark.parametrize(("family", "twin"), [each for each in TWINS if each[1] in OWN])
def test_what_cannot_be_known_is_said(family: str, twin: str, tmp_path: Path) -> None:
    saved(tmp_path, family, twin, None)
    found = load({"model": str(tmp_path), "family": family}, tmp_path)
    with pytest.raises(RowError, match="this template has no place for it") as error:
        rendered(found)
    assert "set template.image_text" in str(error.value) and "\n" not in str(error.value)
