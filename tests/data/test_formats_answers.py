"""Formats of prompts and answers: labelled, completed, or still to come."""

from typing import Any

import pytest

from data.converting import convert, matching, problem
from data.formats_setup import BAD, EXPECTED, GOOD, QUESTION, gpt, human, said
from tunewright import RowError
from tunewright.types import Conversation, Prompt, Unpaired

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
