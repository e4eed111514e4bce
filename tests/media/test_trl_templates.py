"""Templates with media write what TRL's own training templates write, and train the same tokens."""

from pathlib import Path
from typing import Any

import pytest

from media.media_cases import assistant, image, subject, text, user
from tunewright.types import Message, TextPart

trl = pytest.importorskip("trl", reason="TRL's templates are the reference")

CASES = {
    "qwen2_5_vl": ("qwen", "qwen2_5_vl"),
    "qwen3_vl": ("qwen", "qwen3_vl"),
    "gemma3": ("gemma", "gemma3_media"),
    "smolvlm": ("smollm", "smolvlm"),
    "llava_next": ("llava", "llava_next_mistral"),
}
ONE = [user(image("wide"), text("How wide?")), assistant("Rather wide.")]
TALK = {
    "one": ONE,
    "turns": [*ONE, user(text("And tall?")), assistant("Not so\ntall.")],
    "two": [user(image("wide"), image("tall"), text("Which?")), assistant("The first.")],
}


def as_dicts(talk: list[Message]) -> list[dict[str, Any]]:
    return [
        {
            "role": message.role,
            "content": [{"type": "text", "text": message.content}]
            if isinstance(message.content, str)
            else [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": part.kind}
                for part in message.content
            ],
        }
        for message in talk
    ]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("talk", TALK)
def test_as_trl(name: str, talk: str) -> None:
    """TRL trains also the line end after an answer's last token. That of LLaVA-NeXT leaves BOS to
    the tokenizer, and ends in a space."""
    source = Path(trl.__file__).parent / "chat_templates" / f"{name}_training.jinja"
    case = subject(*CASES[name])
    tokenizer, rendered = case.loaded.tokenizer, case.render(TALK[talk])
    given: Any = {"chat_template": source.read_text("utf-8")}
    text = tokenizer.apply_chat_template(as_dicts(TALK[talk]), tokenize=False, **given)
    if name == "llava_next":
        assert rendered.text == f"<s> {text.rstrip(' ')}"
        return
    assert rendered.text == text
    whole = tokenizer.apply_chat_template(
        as_dicts(TALK[talk]), return_dict=True, return_assistant_tokens_mask=True, **given
    )
    encoded = case.tokeniser.encode(rendered)
    assert encoded.input_ids == whole["input_ids"]
    trained = [label != -100 for label in encoded.labels]
    for place, (own, theirs) in enumerate(zip(trained, whole["assistant_masks"], strict=True)):
        if own != bool(theirs):
            assert theirs and trained[place - 1]
            assert tokenizer.decode(encoded.input_ids[place]) == "\n"
