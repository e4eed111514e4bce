"""Commands of `tunewright chat`, with engines that say what the test wants."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError, RowError
from tunewright.types import MediaPart, Message, TextPart, ToolCall
from tunewright_chat import saved
from tunewright_chat.commands import COMMANDS, Outcome, perform, respond
from tunewright_chat.session import Session, arriving
from tunewright_chat.settings import Settings
from tunewright_chat.talk import Talk
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_hf.templates.info import ReplyForm, TemplateInfo

INFO = TemplateInfo(
    thinking=("<think>", "</think>"),
    reply=ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>"),
)


def talk(*script: Any, tools: Any = (), **how: Any) -> Talk:
    settings = Settings(tools=list(tools))
    return Talk([Session("a", ScriptedEngine(*script, **how), INFO, settings)], settings)


def ask(made: Talk, text: str) -> Outcome:
    """Send a line as the terminal does, to the end of its replies."""
    outcome = respond(made, text)
    list(arriving(outcome.replies))
    return outcome


def said(made: Talk) -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in made.first.messages]


def test_regenerate_replaces_the_last_reply() -> None:
    made = talk("one", "two")
    ask(made, "hi")
    ask(made, "/regenerate")
    assert said(made) == [("user", "hi"), ("assistant", "two")]


def test_a_failed_regeneration_keeps_the_reply() -> None:
    made = talk("one", [RowError("no")])
    ask(made, "hi")
    with pytest.raises(Exception, match="no"):
        ask(made, "/regenerate")
    assert said(made) == [("user", "hi"), ("assistant", "one")]


def test_undo_takes_back_the_message_with_tool_results() -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    made = talk("one", call, "two", tools=[{"function": {"name": "add"}}])
    for text in ("first", "second", "3"):
        ask(made, text)
    assert len(made.first.messages) == 6
    assert perform(made, "/undo").said == "taken back: second"
    assert said(made) == [("user", "first"), ("assistant", "one")]
    perform(made, "/undo")
    with pytest.raises(RecipeError, match="/undo: there is no message yet"):
        perform(made, "/undo")


def test_edit_puts_the_last_message_into_the_prompt_or_replaces_it() -> None:
    made = talk("one", "two")
    ask(made, "first")
    assert perform(made, "/edit").draft == "first"
    assert said(made) == []
    ask(made, "second")
    ask(made, "/edit third")
    assert said(made) == [("user", "third"), ("assistant", "two")]


def test_new_keeps_the_system_prompt() -> None:
    made = talk("one")
    ask(made, "/system Be kind.")
    ask(made, "hi")
    ask(made, "/new")
    ask(made, "again")
    last = made.first.engine.asked[-1].conversation.messages
    assert [(each.role, each.content) for each in last] == [
        ("system", "Be kind."),
        ("user", "again"),
    ]
    ask(made, "/system none")
    ask(made, "third")
    assert made.first.engine.asked[-1].conversation.messages[0].role == "user"


def test_params_go_into_the_request() -> None:
    made = talk("one")
    ask(made, "/params temperature=0.5 seed=3 stop=END enable_thinking=false")
    ask(made, "hi")
    asked = made.first.engine.asked[-1]
    assert (asked.temperature, asked.seed, asked.stop) == (0.5, 3, ("END",))
    assert asked.conversation.variables == {"enable_thinking": False}
    assert "temperature = default" in ask(made, "/params temperature=").said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("temprature=1", "no 'temprature' .*did you mean 'temperature'"),
        ("temperature", "expected NAME=VALUE"),
        ("temperature=warm", "/params temperature: found 'warm'"),
        ("seed=1.5", "/params seed"),
    ],
)
def test_params_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        perform(talk("one"), f"/params {text}")


def test_raw_shows_prompt_and_reply_as_the_model_sees_them() -> None:
    made = talk("<think>hm</think>\n\nParis.")
    ask(made, "France?")
    assert perform(made, "/raw").said == "user: France?<think>hm</think>\n\nParis."
    assert perform(made, "/thinking").said == "hm"
    assert made.first.messages[-1] == Message("assistant", "Paris.", reasoning="hm")


def test_thinking_that_the_prompt_has_opened_is_thinking() -> None:
    made = talk("hm</think>Paris.")
    ask(made, "France? <think>")
    assert made.first.messages[-1] == Message("assistant", "Paris.", reasoning="hm")


def test_adapter_switches_the_model_of_requests() -> None:
    made = talk("one", models=("base", "pirate"))
    assert perform(made, "/adapter").said == "* base\n  pirate"
    assert perform(made, "/adapter pirate").said == "  base\n* pirate"
    ask(made, "hi")
    assert made.first.engine.asked[-1].model == "pirate"
    with pytest.raises(RecipeError, match=r"no 'pirat' .*did you mean 'pirate'"):
        perform(made, "/adapter pirat")


def test_unknown_commands_and_messages_that_begin_with_a_slash() -> None:
    made = talk("one")
    with pytest.raises(RecipeError, match=r"/udno: there is no such command .*'/undo'"):
        respond(made, "/udno")
    ask(made, "//etc/hosts")
    assert said(made)[0] == ("user", "/etc/hosts")
    assert respond(made, "/exit").leaves and respond(made, "/quit").leaves


def test_help_names_every_command() -> None:
    shown = perform(talk("one"), "/help").said
    assert all(f"{name} " in shown for name in COMMANDS)


def test_a_saved_conversation_is_loaded_as_it_was(tmp_path: Path) -> None:
    made = talk("one")
    perform(made, "/system Be kind.")
    messages = [
        Message("user", [TextPart("See"), MediaPart("image", "/a.png")]),
        Message("assistant", "", "hm", [ToolCall("add", {"a": 1}, "c1")]),
        Message("tool", "3", tool_call_id="c1", name="add"),
        Message("assistant", "Three."),
    ]
    made.first.messages = [*messages]
    perform(made, f"/save {tmp_path / 'a.json'}")
    perform(made, "/new")
    perform(made, "/system none")
    assert perform(made, f"/load {tmp_path / 'a.json'}").said == "4 messages"
    assert made.first.messages == messages
    assert made.settings.system == "Be kind."
    with pytest.raises(RecipeError, match="exists already"):
        perform(made, f"/save {tmp_path / 'a.json'}")


def test_lines_are_added_to_a_file_of_rows(tmp_path: Path) -> None:
    made = talk("one", "two")
    file = tmp_path / "rows.jsonl"
    for text in ("first", "second"):
        ask(made, text)
        perform(made, f"/save {file}")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(row["messages"]) for row in rows] == [2, 4]
    assert saved.load(file) == made.first.messages


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "{}",
        '{"messages": [{"role": "boss", "content": "a"}]}',
        '{"messages": [{}]}',
        '[{"role": "user", "content": [{"type": "image_url"}]}]',
        "[" * 100_000,
    ],
)
def test_files_that_hold_no_conversation(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RecipeError, match="holds no conversation"):
        saved.load(tmp_path / "a.json")


def test_media_go_where_they_are_named(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"")
    made = talk("one", features=("generation", "images"))
    assert ask(made, f"/image {image}").said == "1 file goes with the next message"
    ask(made, f"What is this?\n/image {image}\nAnd this?")
    medium = MediaPart("image", str(image.resolve()))
    assert said(made)[0] == (
        "user",
        [medium, TextPart("What is this?"), medium, TextPart("And this?")],
    )
    assert perform(made, "/edit").draft.count(f"/image {image}") == 2
    with pytest.raises(RecipeError, match="there is no file"):
        respond(made, "/image nowhere.png")


def test_media_are_refused_where_the_engine_takes_none() -> None:
    with pytest.raises(RecipeError, match="the engine of a takes no image"):
        respond(talk("one"), "/image a.png")
    with pytest.raises(RecipeError, match="the engine of a takes no audio"):
        respond(talk("one", features=("generation", "images")), "/audio a.wav")


def test_two_models_get_the_same_messages_and_keep_their_own_replies() -> None:
    settings = Settings()
    sides = [Session(name, ScriptedEngine(name), INFO, settings) for name in ("one", "two")]
    made = Talk(sides, settings)
    ask(made, "hi")
    assert [side.messages[1].content for side in sides] == ["one", "two"]
    perform(made, "/undo")
    assert [side.messages for side in sides] == [[], []]


def test_an_empty_reply_beside_another_keeps_the_sides_in_step() -> None:
    settings = Settings()
    sides = [Session(name, ScriptedEngine([name]), INFO, settings) for name in ("", "two")]
    made = Talk(sides, settings)
    ask(made, "hi")
    assert [len(side.messages) for side in sides] == [2, 2]
    alone = talk([""])
    ask(alone, "hi")
    assert alone.first.messages == []
