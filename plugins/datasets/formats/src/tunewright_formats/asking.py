"""Reading of prompts and answers in all their notations, shared by several formats."""

from typing import Any

from tunewright.types import Message, RowsRequest
from tunewright_formats import openai, sharegpt
from tunewright_formats.alpaca import question
from tunewright_formats.conversation import (
    TOOL_COLUMNS,
    add_system,
    check_ends,
    tools,
)
from tunewright_formats.fields import bad, describe, spellings, text
from tunewright_formats.media import MEDIA_COLUMNS, place_media
from tunewright_formats.record_reader import RecordReader, check_names

#: columns that may hold the prompt; the first one present is used
PROMPTS = ("prompt", "instruction", "conversations", "messages")
COLUMNS = (*PROMPTS, "input", "history", "system", *TOOL_COLUMNS, *MEDIA_COLUMNS)

#: messages, and the record's field name of each
Told = tuple[list[Message], list[str]]


class Asking:
    """Reads prompts and answers of one source. Texts become messages of user and assistant; turns
    are in sharegpt's or openai's notation."""

    def __init__(
        self,
        request: RowsRequest,
        answers: tuple[str, ...],
        required: tuple[str, ...] = (),
        keeps_rest: bool = False,
    ) -> None:
        self.reader = RecordReader(request, (*COLUMNS, *answers), required, keeps_rest)
        self.names = self.reader.names
        check_names(request.tags, tuple(sharegpt.TAGS | openai.TAGS), "tags")
        self._sharegpt = sharegpt.Turns(spellings(request.tags, sharegpt.TAGS), self.reader)
        self._openai = openai.Turns(spellings(request.tags, openai.TAGS), self.reader)
        calls = {"function_call", "observation"} & set(request.tags)
        self._like_sharegpt = True if calls else False if "tool" in request.tags else None

    def turns(self, value: Any, field: str) -> Told:
        """Read a list of turns, or a single turn."""
        items = [value] if isinstance(value, dict) else value
        like_sharegpt = self._like_sharegpt
        if like_sharegpt is None:
            key = self._sharegpt.role_key
            like_sharegpt = (
                key == "from" and isinstance(items, list) and bool(items) and _has(items[0], key)
            )
        reads = self._sharegpt if like_sharegpt else self._openai
        messages, fields = reads.read(items, field)
        return messages, [field] if isinstance(value, dict) else fields

    def source(self, record: dict[str, Any]) -> str | None:
        """Name of the column that holds the prompt."""
        return self.reader.first(record, PROMPTS)

    def prompt(self, record: dict[str, Any], source: str) -> Told:
        """Read the prompt in that column, before ordering and without the system column."""
        if source == "instruction":
            return question(record, self.names)
        self.reader.leave(record, ("input", "history"))
        value, field = record[source], self.names[source]
        if isinstance(value, str):
            return [Message("user", text(value, field))], [field]
        return self.turns(value, field)

    def answer(self, value: Any, field: str) -> Told:
        """Read an answer, or a whole conversation that ends with one."""
        if isinstance(value, list | dict):
            return self.turns(value, field)
        return [Message("assistant", text(value, field))], [field]

    def finish(
        self, prompt: Told, answers: list[Told], record: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Check the end with each answer, and insert system and media. Returns the tools."""
        messages, fields = prompt
        add_system(messages, fields, record, self.names)
        check_ends(messages, fields, answered=False)
        for answer, answer_fields in answers:
            check_ends([*messages, *answer], [*fields, *answer_fields])
        if record["objects"] is not None and len(answers) > 1:
            bad(self.names["objects"], "answers that are compared cannot have boxes")
        # the media are the prompt's, and the objects those of the answer too
        told = answers if record["objects"] is not None else []
        place_media([*messages, *(one for each, _ in told for one in each)], record, self.reader)
        return tools(record, self.reader)


def after(prompt: list[Message], answer: Told) -> Told:
    """The answer without the prompt, if the record repeats the prompt before it."""
    messages, fields = answer
    if messages[0].role == "assistant":
        return answer
    count = same_start(prompt, messages)
    if count < len(prompt) or count == len(messages):
        other = describe(messages[min(count, len(messages) - 1)].content)
        bad(
            fields[min(count, len(fields) - 1)], f"found {other}, which is not what the prompt says"
        )
    return messages[count:], fields[count:]


def split(told: Told) -> tuple[Told, Told]:
    """Split a conversation into its prompt and its last answer."""
    messages, fields = told
    count = max((place for place, m in enumerate(messages, 1) if m.role != "assistant"), default=0)
    if count == len(messages):
        bad(
            fields[-1],
            f"the last message is from {messages[-1].role}, expected the assistant's answer",
        )
    return (messages[:count], fields[:count]), (messages[count:], fields[count:])


def same_start(one: list[Message], other: list[Message]) -> int:
    """Number of messages that both start with."""
    pairs = zip(one, other, strict=False)
    return next(
        (place for place, (a, b) in enumerate(pairs) if said(a) != said(b)),
        min(len(one), len(other)),
    )


def said(message: Message) -> Any:
    return message.role, message.content, message.reasoning, message.tool_calls


def _has(turn: Any, key: str) -> bool:
    return isinstance(turn, dict) and key in turn
