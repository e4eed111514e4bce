"""Rows that are longer than max_length: what is cut, and what never is."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.running import build, chat_run, request, tokenizer
from tunewright.types import Message, Prompt
from tunewright_dataset_chat.truncate import cut, cut_pair, pair_length, with_prompt, without_oldest
from tunewright_hf.tokenization.encode import Encoded

END = tokenizer().convert_tokens_to_ids("<|im_end|>")


@st.composite
def rows(draw: st.DrawFn) -> Encoded:
    ids = draw(st.lists(st.integers(0, 9), min_size=2, max_size=30))
    labels = [token if draw(st.booleans()) else -100 for token in ids]
    weights = [0.5 if label != -100 else 0.0 for label in labels] if draw(st.booleans()) else None
    return Encoded(array("i", ids), array("i", labels), weights)


@given(rows(), st.data(), st.sampled_from(["end", "start"]), st.sampled_from([None, 0, 1]))
def test_a_cut_row_is_one_end_of_the_whole(
    row: Encoded, data: st.DataObject, policy: Any, bos: int | None
) -> None:
    size = data.draw(st.integers(1, len(row.input_ids) - 1))
    found = cut(row, size, policy, bos)
    assert len(found.input_ids) == size
    begins = policy == "start" and bos == row.input_ids[0] and size > 1
    kept = (
        range(size)
        if policy == "end"
        else range(len(row.input_ids) - size + begins, len(row.input_ids))
    )
    places = [0, *kept] if begins else [*kept]
    for name in ("input_ids", "labels", "loss_weights"):
        whole = getattr(row, name)
        expected = None if whole is None else [whole[place] for place in places]
        assert getattr(found, name) == (
            expected if name == "loss_weights" else array("i", expected)
        )


@given(
    st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=12),
    st.booleans(),
    st.integers(0, 13),
)
def test_as_few_turns_go_as_possible(roles: list[Any], system: bool, room: int) -> None:
    messages = [Message("system", "s")] * system + [
        Message(role, str(place)) for place, role in enumerate(roles)
    ]

    def attempt(shorter: list[Message]) -> list[Message] | None:
        return shorter if len(shorter) <= room else None

    found = without_oldest(messages, attempt)
    starts = [place for place, message in enumerate(messages) if message.role == "user"]
    possible = [messages[:system] + messages[start:] for start in starts[1:]]
    fitting = [shorter for shorter in possible if len(shorter) <= room]
    assert found == (fitting[0] if fitting else None)


# ---- whole rows ----------------------------------------------------------------------------------

words = st.text("ab \n", min_size=1, max_size=25).filter(str.strip)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chats=st.lists(
        st.lists(words, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0),
        min_size=1,
    ),
    size=st.integers(4, 90),
    policy=st.sampled_from(["drop", "end", "start", "turns"]),
)
def test_nothing_ends_that_does_not_end_in_the_data(
    tmp_path: Path, chats: list[list[str]], size: int, policy: str
) -> None:
    """Without a cut, a row is as it always is; a cut row is a part of it; and all are counted."""
    records = [
        {
            "messages": [
                {"role": ("user", "assistant")[i % 2], "content": text}
                for i, text in enumerate(texts)
            ]
        }
        for texts in ([["a", "b"], *chats])
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    whole = list(build(chat_run(tmp_path), request(tmp_path, "a.jsonl", max_length=9999)).train)
    data = build(
        chat_run(tmp_path, truncate=policy), request(tmp_path, "a.jsonl", max_length=max(size, 20))
    )
    size = max(size, 20)
    kept = list(data.train)
    assert len(kept) + sum(data.dropped.values()) == len(whole) == data.rows_read
    expected = {
        "drop": lambda row: None,
        "end": lambda row: {name: value[:size] for name, value in row.items()},
        "start": lambda row: {name: value[-size:] for name, value in row.items()},
    }
    if policy == "turns":
        ends = {tuple(row["input_ids"][-8:]) for row in whole}
        assert all(
            len(row["input_ids"]) <= size and tuple(row["input_ids"][-8:]) in ends for row in kept
        )
        assert all(row["labels"][-1] == END for row in kept)
        return
    found = [row if len(row["input_ids"]) <= size else expected[policy](row) for row in whole]
    assert kept == [
        row for row in found if row and any(label != -100 for label in row["labels"][1:])
    ]
    long = sum(len(row["input_ids"]) > size for row in whole)
    notes = [note for note in data.notes if f"to fit into {size} tokens: " in note]
    changed = sum(int(note.split()[-1]) for note in notes)
    assert changed + sum(data.dropped.values()) == long


def test_documents_are_split_whatever_truncate_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat " * 40)
    made = [
        list(
            build(
                chat_run(tmp_path, truncate=policy),
                request(tmp_path, "a.txt", rows="text", max_length=20),
            ).train
        )
        for policy in ("drop", "end", "start", "turns")
    ]
    assert made[0] == made[1] == made[2] == made[3]


# ---- prompts and answers -------------------------------------------------------------------------

PAIR = {
    "prompt_ids": [0, 1, 2, 3, 4],
    "chosen_ids": [5, 6, 7],
    "rejected_ids": [8, 9],
    "margin": None,
}


def test_pairs_lose_the_start_of_the_prompt_or_the_ends_of_the_answers() -> None:
    assert pair_length(PAIR) == 8
    assert cut_pair(PAIR, 6, "end", None) == PAIR | {"chosen_ids": [5], "rejected_ids": [8]}
    assert cut_pair(PAIR, 6, "start", None) == PAIR | {"prompt_ids": [2, 3, 4]}
    assert cut_pair(PAIR, 6, "start", 0) == PAIR | {"prompt_ids": [0, 3, 4]}
    assert cut_pair(PAIR, 5, "end", None) is None
    assert cut_pair(PAIR, 4, "start", None) is None


def test_a_prompt_to_be_answered_has_no_end_to_lose() -> None:
    prompt = {"prompt_ids": [1, 2, 3], "answer": "x"}
    assert cut_pair(prompt, 2, "end", None) is None
    assert cut_pair(prompt, 2, "start", None) == {"prompt_ids": [2, 3], "answer": "x"}


@pytest.mark.parametrize(
    ("policy", "expected"), [("drop", 1), ("end", 2), ("start", 2), ("turns", 2)]
)
def test_long_preferences(tmp_path: Path, policy: str, expected: int) -> None:
    turns = [
        {"role": "user", "content": "a" * 20},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    records = [
        {"prompt": turns[2:], "chosen": "d", "rejected": "e"},
        {"prompt": turns, "chosen": "d", "rejected": "e"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = chat_run(tmp_path, TEMPLATE_WITH_PROMPT, truncate=policy)
    whole = build(
        chat_run(tmp_path, TEMPLATE_WITH_PROMPT), request(tmp_path, "a.jsonl", rows="preference")
    ).train
    size = pair_length(whole[1]) - 1
    data = build(run, request(tmp_path, "a.jsonl", rows="preference", max_length=size))
    assert len(data.train) == expected
    assert data.train[0] == whole[0]
    if policy == "turns":
        assert data.train[1] == whole[0]
    elif policy == "start":
        assert data.train[1] == whole[1] | {"prompt_ids": whole[1]["prompt_ids"][1:]}


TEMPLATE_WITH_PROMPT = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == "assistant" -%}
{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}
{% else -%}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def test_rows_get_another_prompt() -> None:
    row = Prompt([Message("user", "a")], columns={"answer": 1})
    assert with_prompt(row, []) == Prompt([], columns={"answer": 1})
