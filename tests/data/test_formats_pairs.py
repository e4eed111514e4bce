"""Formats of compared and ranked answers: pairs however they are written, and what is no pair."""

from typing import Any

import pytest

from data.converting import convert, convert_all, matching, problem
from data.formats_setup import BAD, EXPECTED, GOOD, QUESTION, gpt, human, said
from tunewright.types import MediaPart, Preference, TextPart, ToolCall


def pair(record: Any, **names: Any) -> tuple[list[Any], list[Any], list[Any]]:
    row = convert("preference", record, **names)
    assert isinstance(row, Preference), row
    assert str(row.origin) == "a.jsonl:7"
    return said(row.prompt), said(row.chosen), said(row.rejected)


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
