"""Formats of prompts and answers: compared, ranked, labelled, completed, or still to come."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.converting import FORMATS, convert, convert_all, matching, problem
from tunewright import RowError
from tunewright.types import (
    Conversation,
    MediaPart,
    Message,
    Preference,
    Prompt,
    TextPart,
    ToolCall,
    Unpaired,
)

QUESTION = {"role": "user", "content": "q"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("good", "bad"))


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def said(messages: list[Message]) -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in messages]


def pair(record: Any, **names: Any) -> tuple[list[Any], list[Any], list[Any]]:
    row = convert("preference", record, **names)
    assert isinstance(row, Preference), row
    assert str(row.origin) == "a.jsonl:7"
    return said(row.prompt), said(row.chosen), said(row.rejected)


EXPECTED = ([("user", "q")], [("assistant", "good")], [("assistant", "bad")])

PAIRS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "messages": {"prompt": [QUESTION], "chosen": [GOOD], "rejected": [BAD]},
    "implicit": {"chosen": [QUESTION, GOOD], "rejected": [QUESTION, BAD]},
    "prompt and whole": {"prompt": "q", "chosen": [QUESTION, GOOD], "rejected": [QUESTION, BAD]},
    "prompt messages and whole": {
        "prompt": [QUESTION],
        "chosen": [QUESTION, GOOD],
        "rejected": [BAD],
    },
    "alpaca": {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
    "sharegpt": {"conversations": [human("q")], "chosen": gpt("good"), "rejected": gpt("bad")},
    "sharegpt implicit": {
        "chosen": [human("q"), gpt("good")],
        "rejected": [human("q"), gpt("bad")],
    },
    "openai": {"messages": [QUESTION], "chosen": GOOD, "rejected": BAD},
    "chosen_messages": {"chosen_messages": [QUESTION, GOOD], "rejected_messages": [QUESTION, BAD]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_however_it_is_written(name: str) -> None:
    assert pair(PAIRS[name]) == EXPECTED
    assert matching(PAIRS[name]) == ["preference"]


def test_the_prompt_of_two_conversations_is_what_they_share() -> None:
    start = [{"role": "system", "content": "s"}, QUESTION, GOOD, {"role": "user", "content": "r"}]
    record = {"chosen": [*start, GOOD], "rejected": [*start, BAD]}
    prompt, chosen, rejected = pair(record)
    assert [role for role, _ in prompt] == ["system", "user", "assistant", "user"]
    assert (chosen, rejected) == EXPECTED[1:]
    assert pair(record | {"prompt": "r"})[0] == prompt
    assert "prompt: found 'x', and the answers reply to 'r'" in problem(
        "preference", record | {"prompt": "x"}
    )


def test_pair_with_system_tools_margin_and_media() -> None:
    record = PAIRS["sharegpt"] | {
        "conversations": [human("<image>q")],
        "system": "s",
        "tools": '[{"name": "f"}]',
        "margin": 2,
        "images": ["a.png"],
    }
    row = convert("preference", record)
    assert isinstance(row, Preference)
    assert (row.margin, row.tools[0]["function"]) == (2.0, {"name": "f"})
    assert said(row.prompt) == [
        ("system", "s"),
        ("user", [MediaPart("image", "a.png"), TextPart("q")]),
    ]


def test_pair_may_answer_a_tool_or_call_one() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    result = {"role": "tool", "content": "r"}
    prompt, *_ = pair({"prompt": [QUESTION, call, result], "chosen": [GOOD], "rejected": [BAD]})
    assert prompt[-1] == ("tool", "r")
    row = convert("preference", {"prompt": "q", "chosen": [call], "rejected": "bad"})
    assert isinstance(row, Preference)
    assert row.chosen[0].tool_calls == [ToolCall("f", {})]


def test_pair_with_other_names() -> None:
    record = {
        "dialogue": [{"who": "U", "says": "q"}],
        "better": {"who": "B", "says": "good"},
        "rejected": "bad",
    }
    columns = {"messages": "dialogue", "chosen": "better"}
    tags = {"role": "who", "content": "says", "user": "U", "assistant": "B"}
    assert pair(record, columns=columns, tags=tags) == EXPECTED


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"chosen": "good", "rejected": "bad"}, "record: found an object with"),
        ({"prompt": "q", "chosen": "good"}, "rejected: found null, expected text"),
        ({"prompt": "q", "chosen": "good", "rejected": ""}, "rejected: is empty"),
        ({"prompt": "q", "chosen": "good", "rejected": 3}, "rejected: found 3, expected text"),
        ({"prompt": "q", "chosen": "same", "rejected": "same"}, "rejected: is the same as chosen"),
        ({"prompt": "", "chosen": "good", "rejected": "bad"}, "prompt: is empty"),
        (
            {"prompt": [GOOD], "chosen": "good", "rejected": "bad"},
            "prompt[0]: the last message is from assistant",
        ),
        (
            {"prompt": [QUESTION, GOOD], "chosen": "a", "rejected": "b"},
            "prompt[1]: the last message is from assistant",
        ),
        ({"prompt": "q", "chosen": [], "rejected": "bad"}, "chosen: is empty"),
        (
            {"prompt": "q", "chosen": QUESTION, "rejected": "bad"},
            "chosen: found 'q', which is not what the prompt",
        ),
        (
            {"chosen": [QUESTION, GOOD], "rejected": [{**QUESTION, "content": "r"}, BAD]},
            "rejected[0]: is another",
        ),
        (
            {"prompt": "q", "chosen": "good", "rejected": "bad", "margin": "x"},
            "margin: found 'x', expected a number",
        ),
        (
            {"prompt": "q", "chosen": "good", "rejected": "bad", "system": 1},
            "system: found 1, expected text",
        ),
        (
            {"prompt": "q", "chosen": "a", "rejected": "b", "images": ["x"]},
            "images: has 1, but the texts have 0",
        ),
        (
            {"prompt": "q", "chosen": [QUESTION], "rejected": "bad"},
            "chosen[0]: found 'q', which is not",
        ),
    ],
)
def test_pair_that_cannot_be_used(record: Any, expected: str) -> None:
    assert problem("preference", record).startswith(expected)


# ---- ranking -------------------------------------------------------------------------------------


def ranked(record: dict[str, Any], pairs: str = "best") -> list[tuple[Any, Any, Any]]:
    rows = convert_all("ranking", {"prompt": "q"} | record, options={"pairs": pairs})
    assert all(isinstance(row, Preference) and str(row.origin) == "a.jsonl:7" for row in rows), rows
    return [(row.chosen[0].content, row.rejected[0].content, row.margin) for row in rows]  # type: ignore[union-attr]


def test_the_best_against_each_and_each_against_the_next() -> None:
    answers = {"answers": ["a", "b", "c"]}
    assert ranked(answers) == [("a", "b", None), ("a", "c", None)]
    assert ranked(answers, "adjacent") == [("a", "b", None), ("b", "c", None)]
    assert ranked({"answers": ["b", "c", "a"], "ranks": [2, 3, 1]}) == ranked(answers)


def test_scores_give_margins_and_ties_no_pair() -> None:
    scored = {"answers": ["c", "a", "b", "b2"], "scores": [0, 3, 1, 1]}
    assert ranked(scored) == [("a", "b", 2.0), ("a", "b2", 2.0), ("a", "c", 3.0)]
    assert ranked(scored, "adjacent") == [("a", "b", 2.0), ("b2", "c", 1.0)]
    tied = {"prompt": "q", "answers": ["a", "b"], "scores": [1, 1]}
    assert problem("ranking", tied) == "answers: has no answer that is better than another"


def test_ranking_reads_messages_and_is_found_by_its_numbers() -> None:
    record = {"messages": [QUESTION], "answers": [GOOD, [BAD]], "scores": [1, 0]}
    assert matching(record) == ["ranking"]
    row = convert("ranking", record)
    assert isinstance(row, Preference)
    assert (said(row.prompt), said(row.chosen), said(row.rejected)) == EXPECTED
    assert matching({"prompt": "q", "answers": ["4", "four"]}) == ["prompts"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"answers": "a"}, "answers: found 'a', expected a list"),
        ({"answers": ["a", None]}, "answers[1]: found null, expected text"),
        ({"answers": ["a", "b"], "scores": [1]}, "scores: has 1 numbers for 2 answers"),
        ({"answers": ["a", "b"], "ranks": [1, "x"]}, "ranks[1]: found 'x', expected a number"),
        ({"answers": ["a", "b"], "ranks": [1, 2], "scores": [1, 2]}, "scores: stands beside ranks"),
        ({"answers": ["a"]}, "answers: has no answer that is better"),
    ],
)
def test_ranking_that_cannot_be_used(record: Any, expected: str) -> None:
    assert problem("ranking", {"prompt": "q"} | record).startswith(expected)


# ---- unpaired ------------------------------------------------------------------------------------

LABELLED: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "q", "completion": "good", "label": True},
    "messages": {"prompt": [QUESTION], "completion": [GOOD], "label": True},
    "whole": {"prompt": [QUESTION], "completion": [QUESTION, GOOD], "label": True},
    "alpaca": {"instruction": "q", "input": "", "output": "good", "kto_tag": True},
    "sharegpt": {"conversations": [human("q"), gpt("good")], "kto_tag": True},
    "openai": {"messages": [QUESTION, GOOD], "label": True},
    "csv": {"instruction": "q", "output": "good", "label": "true"},
}


@pytest.mark.parametrize("name", LABELLED)
def test_a_labelled_answer_however_it_is_written(name: str) -> None:
    row = convert("unpaired", LABELLED[name])
    assert isinstance(row, Unpaired), row
    assert (said(row.prompt), said(row.completion), row.label) == (*EXPECTED[:2], True)
    assert matching(LABELLED[name]) == ["unpaired"]


def test_of_a_labelled_conversation_the_last_answer_is_meant() -> None:
    row = convert("unpaired", {"messages": [QUESTION, GOOD, QUESTION, BAD], "label": False})
    assert isinstance(row, Unpaired)
    assert (len(row.prompt), said(row.completion), row.label) == (3, [("assistant", "bad")], False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": 1}, "label: found 1, expected true or false"),
        ({"label": "maybe"}, "label: found 'maybe', expected true or false"),
        ({"label": None}, "label: is missing, expected true or false"),
        ({"completion": None}, "completion: is missing, expected an answer"),
        ({"prompt": None}, "record: found an object with"),
        ({"prompt": [QUESTION, GOOD]}, "prompt[1]: the last message is from assistant"),
        ({"completion": [QUESTION]}, "completion[0]: found 'q', which is not what the prompt says"),
    ],
)
def test_labelled_record_that_cannot_be_used(change: Any, expected: str) -> None:
    assert problem("unpaired", LABELLED["texts"] | change).startswith(expected)


def test_columns_say_which_of_two_is_meant() -> None:
    record = {"prompt": "other", "completion": [QUESTION, GOOD], "label": True}
    row = convert("unpaired", record, columns={"messages": "completion"})
    assert isinstance(row, Unpaired)
    assert said(row.prompt) == EXPECTED[0]


@pytest.mark.parametrize("name", ["alpaca", "sharegpt", "openai", "prompt_completion"])
def test_labelled_answers_are_never_trained_as_if_all_were_good(name: str) -> None:
    samples = {
        "alpaca": "alpaca",
        "sharegpt": "sharegpt",
        "openai": "openai",
        "prompt_completion": "texts",
    }
    record = LABELLED[samples[name]]
    error = convert(name, record)
    assert isinstance(error, RowError)
    assert error.problem.startswith(("label: says whether the answer is good", "kto_tag: says"))
    assert "format: unpaired" in error.hint
    plain = {key: value for key, value in record.items() if key not in ("label", "kto_tag")}
    assert isinstance(convert(name, plain), Conversation)
    assert isinstance(convert(name, plain | {"label": None}), Conversation)


# ---- prompts and completions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "q"},
        {"prompt": [QUESTION]},
        {"prompt": [human("q")]},
        {"instruction": "q", "input": ""},
        {"messages": [QUESTION]},
        {"conversations": [human("q")]},
    ],
)
def test_prompts_keep_the_other_columns(record: dict[str, Any]) -> None:
    whole = record | {"system": None, "answer": {"value": 4}, "id": 3}
    row = convert("prompts", whole)
    assert isinstance(row, Prompt), row
    assert (said(row.messages), row.columns) == (
        EXPECTED[0],
        {"system": None, "answer": {"value": 4}, "id": 3},
    )
    assert matching(whole) == ["prompts"]


def test_prompt_with_system_and_input() -> None:
    row = convert("prompts", {"instruction": "a", "input": "b", "system": "s", "output": "kept"})
    assert isinstance(row, Prompt)
    assert (said(row.messages), row.columns) == (
        [("system", "s"), ("user", "a\nb")],
        {"output": "kept"},
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"question": "q"},
            "record: found an object with question, expected a prompt in prompt, instruction",
        ),
        (
            {"messages": [QUESTION, GOOD]},
            "messages[1]: the last message is from assistant, expected one from user",
        ),
        ({"prompt": 3}, "prompt: found 3, expected a list"),
        ([], "record: found a list, expected an object"),
    ],
)
def test_prompt_that_cannot_be_used(record: Any, expected: str) -> None:
    assert problem("prompts", record).startswith(expected)


def test_only_the_completion_is_trained() -> None:
    record = {"prompt": [QUESTION, GOOD, QUESTION], "completion": "bad", "system": "s"}
    row = convert("prompt_completion", record)
    assert isinstance(row, Conversation)
    assert [message.loss_weight for message in row.messages] == [0, 0, 0, 0, 1]
    assert matching(record) == ["prompt_completion"]
    texts = convert("prompt_completion", {"prompt": "The sky", "completion": " is blue"})
    assert isinstance(texts, Conversation)
    assert said(texts.messages) == [("user", "The sky"), ("assistant", " is blue")]
    assert problem("prompt_completion", {"prompt": "q"}).startswith("completion: is missing")


def test_lists_of_answers_are_told_who_reads_them() -> None:
    error = convert("alpaca", {"instruction": "q", "output": ["good", "bad"]})
    assert isinstance(error, RowError)
    assert "format: ranking" in error.hint


def test_a_column_with_two_names_is_read_once() -> None:
    record = {"input": "q", "output": "a"}
    row = convert("alpaca", record, columns={"instruction": "input"})
    assert isinstance(row, Conversation)
    assert said(row.messages) == [("user", "q"), ("assistant", "a")]


# ---- properties ----------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)
dialogues = st.lists(words, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0)


def in_openai(texts: list[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def in_sharegpt(texts: list[str]) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def in_alpaca(texts: list[str]) -> dict[str, Any]:
    history = [texts[i : i + 2] for i in range(0, len(texts) - 2, 2)]
    return {"instruction": texts[-2], "output": texts[-1], "history": history}


@given(texts=dialogues, other=words)
def test_a_conversation_is_the_same_in_every_format(texts: list[str], other: str) -> None:
    expected = [(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    turns = in_openai(texts)
    asked, answer = turns[:-1], texts[-1]
    conversations: dict[str, Any] = {
        "openai": {"messages": turns},
        "sharegpt": {"conversations": in_sharegpt(texts)},
        "alpaca": in_alpaca(texts),
        "prompt_completion": {"prompt": asked, "completion": answer},
    }
    for name, record in conversations.items():
        row = convert(name, record)
        assert isinstance(row, Conversation), row
        assert said(row.messages) == expected
        assert matching(record) == [name]
    labelled = [conversations[name] | {"label": False} for name in conversations]
    for record in labelled:
        unpaired = convert("unpaired", record)
        assert isinstance(unpaired, Unpaired), unpaired
        assert said([*unpaired.prompt, *unpaired.completion]) == expected
        assert matching(record) == ["unpaired"]
    prompt = convert("prompts", {"prompt": asked})
    assert isinstance(prompt, Prompt)
    assert said(prompt.messages) == expected[:-1]
    if other == answer:
        return
    rejected = [*asked, {"role": "assistant", "content": other}]
    pairs = (
        {"prompt": asked, "chosen": answer, "rejected": other},
        {"chosen": turns, "rejected": rejected},
    )
    ranking = convert("ranking", {"prompt": asked, "answers": [answer, other]})
    for row in (*(convert("preference", record) for record in pairs), ranking):
        assert isinstance(row, Preference), row
        assert (said([*row.prompt, *row.chosen]), said(row.rejected)) == (
            expected,
            [("assistant", other)],
        )


keys = st.sampled_from(["role", "from", "value", "content"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "value", "content"]), inner)
    ),
    max_leaves=8,
)
columns = [
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "label",
    "kto_tag",
    "answers",
    "scores",
    "messages",
    "conversations",
    "instruction",
    "output",
]


@given(
    record=st.dictionaries(
        st.sampled_from(columns), json_values | st.just([QUESTION, GOOD]), max_size=6
    )
)
def test_any_record_is_rows_or_one_named_error(record: dict[str, Any]) -> None:
    for name, plugin in FORMATS.items():
        assert plugin.matches(record) in (True, False)
        items = convert_all(name, record)
        assert items
        if isinstance(items[0], RowError):
            assert len(items) == 1 and items[0].place == "a.jsonl:7"
