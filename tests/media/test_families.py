"""Families with media: what only some models take, templates with media, and positions."""

import json
import re
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch

from media.media_cases import AUDIO, IMAGES, TALKS, audio, image, parts, subject, text, user, video
from tunewright import RowError, RunError, registry
from tunewright.types import Conversation, Message, Rendered, TemplateRequest, TextPart
from tunewright_conformance.bench import load_model
from tunewright_hf.media.collation import joined, media_rows
from tunewright_hf.media.positions import Numbering
from tunewright_hf.models.export import save_result
from tunewright_hf.templates.exported import exported_options


def test_spelled_placeholders_are_text() -> None:
    """A user who writes the model's placeholder gets no image."""
    case = subject("qwen", "qwen2_vl")
    pad = case.loaded.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    spelled = user(text("Is <|vision_start|><|image_pad|><|vision_end|> one? "), image("wide"))
    answer = Message("assistant", "Yes: <|image_pad|>")
    found = case.encode([spelled, answer])
    assert found.input_ids.count(pad) == len(case.media.expansions([IMAGES["wide"][0]])[0].ids)
    assert pad not in found.labels


@pytest.mark.parametrize(
    ("family", "twin"), [("llava", "llava_next_mistral"), ("gemma", "gemma3_media")]
)
def test_as_many_placeholders_as_media(family: str, twin: str) -> None:
    case = subject(family, twin)
    rendered = case.render(TALKS["question"])
    with pytest.raises(RowError, match=r"has no media, and the template writes places for 1 image"):
        case.media.expand(rendered, [])
    with pytest.raises(RowError, match="has 2 image, and the template writes places for 1 image"):
        case.media.expand(rendered, [IMAGES["wide"][0]] * 2)
    with pytest.raises(RowError, match="has 1 audio, and the model takes image only"):
        case.media.expand(rendered, [AUDIO["word"][0]])
    plain = Rendered("no media")
    assert case.media.expand(plain, []) is plain


def test_text_for_media_is_an_option() -> None:
    """And is told again from an exported chat template, whose text is the same."""
    vicuna = registry.load(registry.find("template", "vicuna"))
    talk = Conversation([user(image("wide"), text("How wide?")), Message("assistant", "Very.")])
    request = TemplateRequest(talk, special_tokens={"eos_token": "</s>"})
    with pytest.raises(RowError, match="has image, and this template has no place for it"):
        vicuna(vicuna.Options(), "vicuna").format_template(request)
    made = vicuna(vicuna.Options(image_text="<image>\n"), "vicuna")
    rendered = made.format_template(request)
    assert "USER: <image>\nHow wide? ASSISTANT:Very.</s>" in rendered.text
    assert [rendered.text[span.start : span.end] for span in rendered.trained] == ["Very.</s>"]
    exported = made.chat_template()
    assert exported_options(vicuna, exported) == {"image_text": "<image>\n"}
    written = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How wide?"}]},
        {"role": "assistant", "content": "Very."},
    ]
    tokenizer = subject("llava", "llava").loaded.tokenizer
    found = tokenizer.apply_chat_template(written, chat_template=exported, tokenize=False)
    assert found == rendered.text


def test_media_are_numbered() -> None:
    """Each kind on its own, over all messages: ERNIE-VL's own way."""
    case = subject("ernie", "ernie4_5_vl")
    talk = [
        user(image("wide"), text("a"), video("short")),
        Message("assistant", "b"),
        user(image("tall"), text("c {n}"), video("same")),
    ]
    found = case.render(talk, prompt=True).text
    assert re.findall(r"((?:Picture|Video) \d):<", found) == [
        "Picture 1",
        "Video 1",
        "Picture 2",
        "Video 2",
    ]
    assert "c {n}" in found


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_5_nothink", "qwen3_6"])
def test_qwen3_5_has_no_images_in_system_messages(name: str) -> None:
    """As its own template, of which TRL's package has a copy."""
    trl = pytest.importorskip("trl", reason="TRL's templates are the reference")
    talk = [*TALKS["image_in_system"][:1], user(text("Which?")), Message("assistant", "One.")]
    found = registry.load(registry.find("template", name.removesuffix("_think")))
    options = subject("qwen", "qwen3_5_media").loaded.template_options
    template = found(found.Options(**options), name)
    with pytest.raises(RowError, match="a system message cannot have images or videos"):
        template.format_template(TemplateRequest(Conversation(talk)))
    in_text = [Message("system", "Compare with <|image_pad|>."), *talk[1:]]
    assert "with <|image_pad|>.<|im_end|>" in _text_of(template, in_text)
    own = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    tokenizer = subject("qwen", "qwen3_5_media").loaded.tokenizer
    for source in (own.read_text("utf-8"), template.chat_template()):
        with pytest.raises(Exception, match=r"(?i)system message cannot (contain|have) images"):
            tokenizer.apply_chat_template(
                [
                    {"role": "system", "content": [{"type": "image"}]},
                    {"role": "user", "content": ""},
                ],
                chat_template=source,
                tokenize=False,
            )


def _text_of(template: Any, talk: list[Message]) -> str:
    found: Rendered = template.format_template(TemplateRequest(Conversation(talk)))
    return found.text


def test_qwen2_audio_writes_what_its_processor_writes() -> None:
    """The class still has the template of the checkpoint."""
    case = subject("qwen", "qwen2_audio")
    talk = [
        user(audio("word"), text("Who?")),
        Message("assistant", "A child."),
        user(audio("word"), audio("sentence"), text("Again?")),
    ]
    written = [
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": "A child."},
        {
            "role": "user",
            "content": [{"type": "audio"}, {"type": "audio"}, {"type": "text", "text": "Again?"}],
        },
    ]
    own = case.loaded.tokenizer.apply_chat_template(
        written,
        chat_template=case.loaded.processor.default_chat_template,
        tokenize=False,
        add_generation_prompt=True,
    )
    assert case.render(talk, prompt=True).text == own
    assert "Audio 3: <|audio_bos|>" in own


def test_no_path_reaches_a_template() -> None:
    """The name of a file could spell control tokens."""
    case = subject("qwen", "qwen2_vl")
    talk = [user(image("wide"), text("?")), Message("assistant", "!")]
    assert "wide" not in case.render(talk).text


def test_positions_need_no_weights() -> None:
    """What numbers tokens travels to data-loader workers: it must not hold the model."""
    case = subject("qwen", "qwen2_vl")
    media = media_rows(case.loaded)
    assert media is not None and isinstance(media.numbering, Numbering)
    assert len(ForkingPickler.dumps(media.numbering)) < 30_000
    encoded = case.encode(TALKS["images"])
    tensors = case.media.tensors([case.medium(part.path) for part in parts(TALKS["images"])])
    types = case.media.token_types(encoded.input_ids)
    model: Any = case.loaded.model.model
    wanted = model.get_rope_index(
        torch.tensor([encoded.input_ids]),
        torch.tensor([types["mm_token_type_ids"]]),
        tensors["image_grid_thw"],
    )[0]
    assert torch.equal(media.numbering(encoded.input_ids, types, tensors), wanted)
    assert not torch.equal(wanted[0], wanted[1])


def test_the_saved_chat_template_is_the_trained_one(tmp_path: Path) -> None:
    """Not the one that the checkpoint's processor has."""
    case = subject("qwen", "qwen2_audio")
    case.loaded.processor.chat_template = "its own"
    save_result(case.loaded, tmp_path / "model", case.template)
    again = load_model(
        registry.find("family", "qwen"), None, tmp_path, model=str(tmp_path / "model")
    )
    assert again.template == "qwen"
    assert again.template_options == {
        "audio_text": "Audio {n}: <|audio_bos|><|AUDIO|><|audio_eos|>\n",
        "system": "You are a helpful assistant.",
    }
    assert again.processor.chat_template == case.template.chat_template()


@pytest.mark.parametrize(
    ("family", "config", "named"),
    [
        ("internvl", {"model_type": "internvl_chat"}, "OpenGVLab/InternVL3-8B-hf"),
        ("llava", {"model_type": "llava_llama"}, "llava-hf/llava-1.5-7b-hf"),
        ("llava", {"model_type": "llava", "mm_vision_tower": "clip"}, "BUAADreamer/Yi-VL-6B-hf"),
        ("yi", {"model_type": "llava", "mm_vision_tower": "clip"}, "BUAADreamer/Yi-VL-6B-hf"),
    ],
)
def test_other_layouts_name_one_that_is_loaded(
    family: str, config: dict[str, str], named: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="in the layout of its makers") as error:
        load_model(registry.find("family", family), None, tmp_path, model=str(tmp_path))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_joined_tensors_are_padded_at_their_ends() -> None:
    one, other = torch.ones(1, 3, 2), torch.ones(2, 1, 4)
    found = joined([{"pixel_values": one}, {}, {"pixel_values": other}])["pixel_values"]
    assert found.shape == (3, 3, 4)
    assert found[0].tolist() == [[1, 1, 0, 0]] * 3
    assert found[2].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_paligemma_has_no_chat() -> None:
    case = subject("gemma", "paligemma")
    talk = [*TALKS["question"], Message("user", [TextPart("And?")]), Message("assistant", "No.")]
    found = case.encode(talk)
    ids, labels = torch.tensor([found.input_ids]), torch.tensor([found.labels])
    further: Any = case.loaded.media_inputs
    with pytest.raises(RunError, match="takes one question with one answer"):
        further({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels, None)


def test_one_shape_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = subject("mistral", "pixtral")
    asked: list[Any] = []
    call = case.media._call

    def counted(media: Any, **how: Any) -> Any:
        asked.append(media)
        return call(media, **how)

    monkeypatch.setattr(case.media, "_call", counted)
    shape = IMAGES["wide"][0]
    before = case.media.expansions([shape, shape])
    assert before == case.media.expansions([shape, shape])
    assert len(asked) <= 1 + 2  # and the question whether media depend on each other
