"""Llama 3.2 Vision's format. The expected texts were made with the template that its checkpoints
have had on the hub since December 2024 (chat_template.json), with Llama 3.1's fixed date."""

from pathlib import Path

import pytest

from media.media_cases import assistant, image, subject, text, user
from media.test_unlisted import load, rendered, saved
from template_cases import TALKS, render, talk, template
from tunewright.types import Message, ToolCall

USER = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
ASSISTANT = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
DATE = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
SYSTEM = f"<BOS><|start_header_id|>system<|end_header_id|>\n\n{DATE}"
BARE = "<BOS><|start_header_id|>user<|end_header_id|>\n\n"  # no system message

WIDE = user(image("wide"), text("How wide?"))
PUBLISHED = {
    "image": (
        [WIDE, assistant("Rather wide.")],
        f"{BARE}<|image|>How wide?{ASSISTANT}Rather wide.<|eot_id|>",
    ),
    "system": (
        [Message("system", "Be brief."), WIDE, assistant("Rather wide.")],
        f"{SYSTEM}Be brief.{USER}<|image|>How wide?{ASSISTANT}Rather wide.<|eot_id|>",
    ),
    "white space around images": (
        [
            user(text(" First\n"), image("wide"), text("\nthen "), image("tall"), text(" last\n")),
            assistant(" Both.\n"),
        ],
        f"{BARE} First\n<|image|>\nthen <|image|> last\n{ASSISTANT} Both.\n<|eot_id|>",
    ),
    "an image later": (
        [
            user(text("Hi")),
            assistant("Hello!"),
            user(image("wide"), text("And this?")),
            assistant("A house."),
        ],
        f"{BARE}Hi{ASSISTANT}Hello!{USER}<|image|>And this?{ASSISTANT}A house.<|eot_id|>",
    ),
    "no image": (
        [user(text("How are you? ")), assistant("Fine.")],
        f"{SYSTEM}{USER}How are you? {ASSISTANT}Fine.<|eot_id|>",
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_text_equals_the_published_template(case: str) -> None:
    messages, expected = PUBLISHED[case]
    made = template("llama3_1", vision=True, image_text="<|image|>")
    assert render(made, talk(*messages)).text == expected
    if messages[-1].role == "assistant":
        answer = str(messages[-1].content)
        prompt = expected.removesuffix(f"{answer}<|eot_id|>")
        assert render(made, talk(*messages[:-1]), prompt=True).text == prompt


@pytest.mark.parametrize("sort", ["single", "system", "multi", "tool", "tool_offered"])
def test_text_without_images_is_that_of_llama_3_1(sort: str) -> None:
    """With which the template was compared, and which TRL's copy holds (test_rendering)."""
    made = template("llama3_1", vision=True, image_text="<|image|>")
    assert render(made, TALKS[sort]) == render(template("llama3_1"), TALKS[sort])


def test_tools_and_images() -> None:
    """The published template writes the parts of a message with tools as a Python list: ours has
    the image in its place."""
    call = Message("assistant", "", tool_calls=[ToolCall("camera", {"place": "garden"})])
    tool = {"type": "function", "function": {"name": "camera", "parameters": {}}}
    result = Message("tool", "dark")
    made = template("llama3_1", vision=True, image_text="<|image|>")
    found = render(made, talk(WIDE, call, result, assistant("Yes."), tools=[tool])).text
    assert found.startswith(f"{BARE}Given the following functions, please respond with a JSON")
    assert f'}}\n\n<|image|>How wide?{ASSISTANT}{{"name": "camera", "parameters": ' in found
    assert "Environment: ipython" not in found  # as published: it stands in the system message


def test_the_listed_checkpoints_and_the_twin_use_it() -> None:
    case = subject("llama", "mllama")
    assert case.loaded.template == "llama3_1"
    assert case.loaded.template_options == {"image_text": "<|image|>", "vision": True}
    found = case.render(PUBLISHED["image"][0]).text
    assert found.endswith(PUBLISHED["image"][1].removeprefix("<BOS>"))
    made = template("llama3_1", **case.loaded.template_options)
    assert made.options.vision


@pytest.mark.parametrize(
    "revision",
    [
        "user_supplied_system_message or not image_ns.has_images",
        "image_ns.has_images and not system_message",
    ],
)
def test_an_unlisted_copy_is_told_by_its_template(revision: str, tmp_path: Path) -> None:
    """Of both revisions: the first one refused a system message beside images."""
    source = f"{{#- Environment: ipython {revision} -#}}"
    saved(tmp_path, "llama", "mllama", source)
    found = load({"model": str(tmp_path), "family": "llama"}, tmp_path)
    assert found.template == "llama3_1"
    assert found.template_options == {"image_text": "<|image|>", "vision": True}
    assert rendered(found).text.count("<|image|>") == 1
