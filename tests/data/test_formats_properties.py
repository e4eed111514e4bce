"""Property tests of formats: one conversation in all of them, and any record at all."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data.converting import FORMATS, convert, convert_all, matching
from data.formats_setup import GOOD, QUESTION, said
from tunewright import RowError
from tunewright.types import Conversation, Preference, Prompt, Unpaired

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
