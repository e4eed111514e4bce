"""Each format with records as people write them, and with records that cannot be used."""

from typing import Any

import pytest

from data.converting import FORMATS, convert, messages, problem
from data.formats_setup import ANSWER, USER, chat, talk
from tunewright import RecipeError
from tunewright.types import Conversation, MediaPart, Message, Text, TextPart, ToolCall


def roles(found: list[Message]) -> list[str]:
    return [message.role for message in found]


# ---- alpaca --------------------------------------------------------------------------------------


def test_alpaca_joins_instruction_and_input() -> None:
    assert messages("alpaca", {"instruction": "Add", "input": "1 2", "output": "3"}) == [
        Message("user", "Add\n1 2"),
        Message("assistant", "3"),
    ]


def test_alpaca_history_system_and_tools() -> None:
    row = convert(
        "alpaca",
        {
            "instruction": "C",
            "input": None,
            "output": "c",
            "history": [["A", "a"], ["B", "b"]],
            "system": "S",
            "tools": '[{"name": "f"}]',
        },
    )
    assert isinstance(row, Conversation)
    assert [m.content for m in row.messages] == ["S", "A", "a", "B", "b", "C", "c"]
    assert roles(row.messages)[:3] == ["system", "user", "assistant"]
    assert row.tools == [{"type": "function", "function": {"name": "f"}}]
    assert str(row.origin) == "a.jsonl:7"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"output": None}, "output: found null, expected text"),
        ({"output": ["a", "b"]}, "output: found a list, expected text"),
        ({"output": " "}, "output: is empty, expected text"),
        ({"instruction": 123}, "instruction: found 123, expected text"),
        ({"instruction": "", "input": ""}, "instruction: is empty, expected text"),
        (
            {"history": [["only one"]]},
            "history[0]: found a list, expected a question and an answer",
        ),
        ({"history": "x"}, "history: found 'x', expected a list"),
        ({"history": [["q", None]]}, "history[0][1]: found null, expected text"),
        ({"system": 3}, "system: found 3, expected text"),
        ({"tools": "{"}, "tools: found '{', expected JSON"),
        ({"tools": [{"description": "nameless"}]}, "tools[0].name: found null, expected text"),
    ],
)
def test_alpaca_names_what_is_wrong(change: dict[str, Any], expected: str) -> None:
    assert problem("alpaca", {"instruction": "a", "output": "b"} | change).startswith(expected)


def test_missing_column_says_what_there_is() -> None:
    assert problem("alpaca", {"instruction": "a", "answer": "b"}) == (
        "output: is missing; the record has instruction, answer"
    )
    assert problem("alpaca", "a string") == "record: found 'a string', expected an object"


def test_columns_rename_and_others_keep_their_names() -> None:
    record = {"question": "Add", "input": "1 2", "output": "3"}
    assert messages("alpaca", record, columns={"instruction": "question"})[0].content == "Add\n1 2"


def test_named_column_must_be_there() -> None:
    record = {"instruction": "a", "output": "b", "sytem": "lost"}
    assert problem("alpaca", record, columns={"system": "system"}).startswith("system: is missing")


def test_unknown_names_are_refused_before_reading() -> None:
    with pytest.raises(RecipeError, match="no 'prompt' to rename"):
        convert("alpaca", {}, columns={"prompt": "q"})
    with pytest.raises(RecipeError, match="did you mean 'assistant'"):
        convert("sharegpt", {}, tags={"asistant": "bot"})


# ---- sharegpt ------------------------------------------------------------------------------------


def test_sharegpt_turns_and_system_column() -> None:
    record = chat(("human", "a"), ("gpt", "b"), ("user", "c"), ("assistant", "d")) | {"system": "S"}
    found = messages("sharegpt", record)
    assert roles(found) == ["system", "user", "assistant", "user", "assistant"]


def test_sharegpt_tool_calls_join_the_turn_they_belong_to() -> None:
    call = '{"name": "f", "arguments": {"a": 1}}'
    found = messages(
        "sharegpt",
        chat(
            ("human", "q"),
            ("gpt", "let me see"),
            ("function_call", call),
            ("function_call", f"[{call}]"),
            ("observation", "r1"),
            ("observation", ""),
            ("gpt", "done"),
        ),
    )
    assert roles(found) == ["user", "assistant", "tool", "tool", "assistant"]
    assert found[1] == Message("assistant", "let me see", tool_calls=[ToolCall("f", {"a": 1})] * 2)


def test_sharegpt_tags_rename_keys_and_roles() -> None:
    record = {"dialogue": [{"who": "U", "says": "a"}, {"who": "B", "says": "b"}]}
    tags = {"role": "who", "content": "says", "user": "U", "assistant": "B"}
    found = messages("sharegpt", record, columns={"conversations": "dialogue"}, tags=tags)
    assert roles(found) == ["user", "assistant"]
    turned = chat(("human", "a"), ("gpt", "b"))
    assert "found 'gpt', expected system, human, user, B" in problem(
        "sharegpt", turned, tags={"assistant": "B"}
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"conversations": []}, "conversations: is empty"),
        ({"conversations": "hi"}, "conversations: found 'hi', expected a list"),
        ({"conversations": ["hi"]}, "conversations[0]: found 'hi', expected an object"),
        ({"conversations": [{"from": "human"}]}, "conversations[0]: has no 'value'"),
        (chat(("human", None), ("gpt", "b")), "conversations[0].value: found null, expected text"),
        (
            chat(("human", "a"), ("bot", "b")),
            "conversations[1].from: found 'bot', expected system, human",
        ),
        (chat(("human", "a"), (None, "b")), "conversations[1].from: found null, expected"),
        (
            chat(("human", "a"), ("gpt", "b"), ("system", "c")),
            "conversations[2]: the last message is from system",
        ),
        (
            chat(("human", "a"), ("gpt", "b"), ("human", "c")),
            "conversations[2]: the last message is from user",
        ),
        (chat(("system", "a")), "conversations[0]: the last message is from system"),
        (
            chat(("human", "a"), ("gpt", "b"), ("observation", "c")),
            "conversations[2]: the last message is from tool",
        ),
        (
            chat(("human", "a"), ("function_call", "f()")),
            "conversations[1].value: found 'f()', expected JSON",
        ),
        (chat(("human", "a"), ("function_call", "{}")), "conversations[1].value.name: found null"),
        (
            chat(("human", "a"), ("function_call", '{"name": "f", "arguments": [1]}')),
            "conversations[1].value.arguments: found a list, expected an object",
        ),
        (
            chat(
                ("human", "a"),
                ("function_call", '{"name": "f"}'),
                ("tool", "1"),
                ("tool", "2"),
                ("gpt", "x"),
            ),
            "conversations[3]: is one result more than there were calls",
        ),
        (
            chat(("system", "one"), ("human", "a"), ("gpt", "b")) | {"system": "two"},
            "system: says 'two', and conversations[0] another system text",
        ),
    ],
)
def test_sharegpt_names_what_is_wrong(record: dict[str, Any], expected: str) -> None:
    assert problem("sharegpt", record).startswith(expected)


# ---- text, media, and what all share -------------------------------------------------------------


def test_text_is_a_line_or_a_column() -> None:
    for record in ("a document", {"text": "a document", "url": "x"}):
        row = convert("text", record, rows="text")
        assert isinstance(row, Text)
        assert (row.text, str(row.origin)) == ("a document", "a.jsonl:7")
    assert convert("text", {"body": "b"}, rows="text", columns={"text": "body"}).text == "b"  # type: ignore[union-attr]
    assert (
        str(convert("text", {"text": 3}, rows="text")) == "a.jsonl:7: text: found 3, expected text"
    )


def test_media_go_where_the_text_has_their_marks() -> None:
    record = {
        "instruction": "<image>what? <video>",
        "output": "a cat",
        "images": "1.jpg",
        "videos": ["2.mp4"],
    }
    assert messages("alpaca", record)[0].content == [
        MediaPart("image", "1.jpg"),
        TextPart("what? "),
        MediaPart("video", "2.mp4"),
    ]


def test_marks_are_text_where_the_record_has_no_media() -> None:
    record = {"instruction": "What does <image> mean?", "output": "<audio>", "videos": None}
    assert [m.content for m in messages("alpaca", record)] == ["What does <image> mean?", "<audio>"]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["1.jpg", "2.jpg"], "images: has 2, but the texts have 1 times <image>"),
        ([], "images: has 0, but the texts have 1 times <image>"),
        ([["1.jpg"]], "images[0]: found a list, expected text"),
        (
            ["../../../../etc/passwd"],
            "images[0]: '../../../../etc/passwd' leads out of the media folder",
        ),
        (["a/../../x.jpg"], "images[0]: 'a/../../x.jpg' leads out"),
        (["..\\x.jpg"], "images[0]: '..\\\\x.jpg' leads out"),
        (["/dev/zero"], "images[0]: '/dev/zero' leads out"),
        (["~/x.jpg"], "images[0]: '~/x.jpg' leads out"),
        (["~root/x.jpg"], "images[0]: '~root/x.jpg' leads out"),
        (["a\0.jpg"], "images[0]: 'a\\x00.jpg' leads out"),
        (["http://169.254.169.254/x"], "images[0]: 'http://169.254.169.254/x' is a URL"),
        (["file:///etc/passwd"], "images[0]: 'file:///etc/passwd' is a URL"),
        (["gopher://x"], "images[0]: 'gopher://x' is a URL"),
        (["C:\\x.jpg"], "images[0]: 'C:\\\\x.jpg' is a URL"),
        (["data:text/html,x"], "images[0]: 'data:text/html,x' is a URL"),
    ],
)
def test_media_that_cannot_be_used(images: list[Any], expected: str) -> None:
    record = {"instruction": "<image>?", "output": "b", "images": images}
    assert problem("alpaca", record).startswith(expected)


def test_media_urls_in_parts_are_refused_too() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/x.jpg"}}
    found = problem("openai", talk({"role": "user", "content": [part]}, ANSWER))
    assert found.startswith(
        "messages[0].content[0].image_url: 'https://example.com/x.jpg' is a URL"
    )


@pytest.mark.parametrize(
    ("name", "rows"),
    [("alpaca", "text"), ("sharegpt", "preference"), ("openai", "prompts"), ("text", "messages")],
)
def test_wrong_rows_are_refused_before_reading(name: str, rows: str) -> None:
    with pytest.raises(
        RecipeError, match=f"format '{name}' gives (text|messages), the stage needs {rows}"
    ):
        convert(name, {}, rows=rows)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        (chat(("human", "a"), ("gpt", "b")), "sharegpt"),
        (talk(USER, ANSWER), "openai"),
        ({"text": "a"}, "text"),
        ("a line", "text"),
        ({"messages": [{"from": "human", "value": "a"}]}, None),
        ({"conversations": [{"role": "user", "content": "a"}]}, None),
        ({"instruction": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ([1], None),
        (None, None),
    ],
)
def test_at_most_one_format_knows_a_record(record: Any, expected: str | None) -> None:
    assert [name for name, plugin in FORMATS.items() if plugin.matches(record)] == (
        [expected] if expected else []
    )
