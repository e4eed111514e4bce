"""Rows of preference, unpaired and prompts: ids that serving would see, and answers that end."""

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.running import TEMPLATE, chat_run, tokenizer
from tunewright import RowError
from tunewright.types import (
    Conversation,
    Message,
    Origin,
    Preference,
    Prompt,
    Rendered,
    TemplateRequest,
    Unpaired,
)
from tunewright_dataset_chat.pairs import encode_rows
from tunewright_hf.tokenization.encode import Tokeniser

JOINING = TEMPLATE.replace(
    "<|im_start|>assistant\n{% endif", "<|im_start|>assistant\nc{% endif"
).replace("{% generation %}", "c{% generation %}")  # the prompt ends within a word


class RowProcessor:
    def __init__(self, folder: Path, template: str = TEMPLATE) -> None:
        self.run = chat_run(folder, template)
        self.tokeniser = Tokeniser(tokenizer(), self.run.plugin("template").info)

    def render(self, conversation: Conversation, add_generation_prompt: bool) -> Rendered:
        asked = TemplateRequest(conversation, add_generation_prompt, self.tokeniser.special_tokens)
        rendered: Rendered = self.run.call("template", "format_template", asked)
        return rendered

    def __call__(self, *rows: Any) -> list[Any]:
        found = encode_rows(rows, self.render, self.tokeniser)
        return [
            {k: v.tolist() if isinstance(v, array) else v for k, v in row.items()}
            if isinstance(row, dict)
            else row
            for row in found
        ]

    def whole(self, *messages: Message) -> list[int]:
        ids = self.tokeniser.encode(self.render(Conversation(list(messages)), False)).input_ids
        return ids

    def prompt(self, *messages: Message) -> list[int]:
        return self.tokeniser.encode_prompt(self.render(Conversation(list(messages)), True))


@pytest.fixture(params=[TEMPLATE, JOINING], ids=["chatml", "joining"])
def work(tmp_path: Path, request: pytest.FixtureRequest) -> RowProcessor:
    return RowProcessor(tmp_path, request.param)


def user(text: str) -> Message:
    return Message("user", text)


def bot(text: str, **more: Any) -> Message:
    return Message("assistant", text, **more)


def test_prompt_and_answers_are_the_conversation(work: RowProcessor) -> None:
    prompt = [Message("system", "s"), user("a"), bot("b"), user("c")]
    (row,) = work(Preference(prompt, [bot("at the mat")], [bot("the cat")], margin=0.5))
    assert row["prompt_ids"] == work.prompt(*prompt)
    for name, text in (("chosen_ids", "at the mat"), ("rejected_ids", "the cat")):
        assert tokenizer().decode(row[name]) == text + "<|im_end|>"
        text = tokenizer().decode(row["prompt_ids"] + row[name])
        assert (
            tokenizer()
            .decode(work.whole(*prompt, bot(tokenizer().decode(row[name][:-1]))))
            .rstrip()
            == text
        )
    assert row["margin"] == 0.5


def test_unpaired_and_prompts(tmp_path: Path) -> None:
    work = RowProcessor(tmp_path)
    good, asked = work(
        Unpaired([user("a")], [bot("b")], False), Prompt([user("a")], columns={"answer": 4})
    )
    assert good["label"] is False
    assert good["prompt_ids"] + good["completion_ids"] == work.whole(user("a"), bot("b"))
    assert asked == {"prompt_ids": work.prompt(user("a")), "answer": 4}


def test_rows_that_cannot_be_used_are_items(tmp_path: Path) -> None:
    work = RowProcessor(tmp_path)
    at = Origin("a.jsonl", 3)
    call = [bot("x"), Message("tool", "y"), bot("z")]
    found = work(
        Unpaired([user("a")], call, True, origin=at),
        Unpaired([user("a")], [bot("b")], True),
        Unpaired([user("a")], [bot("b", weight=0.0)], True, origin=at),
        Prompt([bot("b")], origin=at),
        Prompt([user("a")], columns={"prompt_ids": 1}, origin=at),
    )
    assert "label" in found.pop(1)
    assert [str(error).partition(",")[0] for error in found] == [
        "a.jsonl:3: completion has a message from tool",
        "a.jsonl:3: completion has nothing to train",
        "a.jsonl:3: message 1 is from assistant",
        "a.jsonl:3: prompt_ids: is a column of the prepared rows",
    ]


def test_template_that_rewrites_the_prompt_is_refused(tmp_path: Path) -> None:
    work = RowProcessor(tmp_path, "{{ messages | length }}" + TEMPLATE)
    (error,) = work(Unpaired([user("a")], [bot("b")], True))
    assert isinstance(error, RowError)
    assert "writes the prompt in another way" in error.problem


def test_one_text_that_cannot_be_encoded_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = RowProcessor(tmp_path)
    encode_batch: Callable[[Any], Any] = work.tokeniser.encode_batch

    def refusing(texts: list[Rendered]) -> Any:
        if any("BAD" in text.text for text in texts):
            raise RowError("spells it")
        return encode_batch(texts)

    monkeypatch.setattr(work.tokeniser, "encode_batch", refusing)
    good, bad = work(
        Unpaired([user("a")], [bot("b")], True), Unpaired([user("a")], [bot("BAD")], True)
    )
    assert good["prompt_ids"] + good["completion_ids"] == work.whole(user("a"), bot("b"))
    assert isinstance(bad, RowError)


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
prompts = st.lists(texts, min_size=1, max_size=5).filter(lambda found: len(found) % 2 == 1)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    turns=st.lists(texts, min_size=1, max_size=5).filter(lambda found: len(found) % 2 == 1),
    answers=st.tuples(texts, texts),
)
def test_any_text(work: RowProcessor, turns: list[str], answers: tuple[str, str]) -> None:
    prompt = [bot(text) if number % 2 else user(text) for number, text in enumerate(turns)]
    (row,) = work(Preference(prompt, [bot(answers[0])], [bot(answers[1])]))
    assert row["prompt_ids"] == work.prompt(*prompt)
    for name, answer in zip(("chosen_ids", "rejected_ids"), answers, strict=True):
        assert row[name][-1] == tokenizer().convert_tokens_to_ids("<|im_end|>")
        decoded = tokenizer().decode(
            row["prompt_ids"] + row[name], clean_up_tokenization_spaces=False
        )
        assert decoded == work.render(Conversation([*prompt, bot(answer)]), False).text.rstrip("\n")
