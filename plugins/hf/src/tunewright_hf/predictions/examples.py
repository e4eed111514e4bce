"""Examples for prediction and evaluation: prompts with the answers of the data."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tunewright import RecipeError, RowError, TunewrightError
from tunewright.source import Source, problems_of
from tunewright.types import (
    Conversation,
    DataRequest,
    LoadedModel,
    MediaPart,
    Message,
    Preference,
    Prompt,
    Row,
    RowKind,
    RunContext,
    TextPart,
    Unpaired,
)

__all__ = ["Example", "Examples", "example_sources", "message_json"]

#: kinds of rows that have a prompt, in the order in which they are tried
_KINDS: tuple[RowKind, ...] = ("messages", "prompts", "preference", "unpaired")


@dataclass(slots=True)
class Example:
    """A prompt, and the answer that the data has for it."""

    number: int  # in the data; 1 is the first
    conversation: Conversation  # it ends where the model answers
    label: Message | None = None
    columns: dict[str, Any] = field(default_factory=dict)  # of a row without an answer


@dataclass(frozen=True, slots=True)
class ExampleSources:
    """Sources of examples. root: base of relative paths. title: for people."""

    entries: list[Any]  # the dataset plugin's Entry objects
    root: Path
    title: str


class Examples:
    """Examples of some sources, read anew by each iteration. RowError: a record without a prompt.

    count: of all. digest: of their content. media: kind of the first medium; None without media.
    """

    def __init__(self, run: RunContext, sources: ExampleSources, limit: int | None = None) -> None:
        """Read all examples once. Raises RecipeError, also where there is none."""
        self._run, self.sources, self._limit = run, sources, limit
        self.count = 0
        self.media: str | None = None
        digest = hashlib.sha256()
        for example in self:
            self.count += 1
            told: Any = example
            if isinstance(example, Example):
                asked = example.conversation
                self.media = self.media or _first_medium(example)
                told = (asked.messages, asked.tools, asked.variables)
                told += (example.label, example.columns)
            digest.update(repr(told).encode(errors="replace"))
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Example | RowError]:
        request = DataRequest(
            self.sources.entries,
            {},
            _KINDS[0],
            LoadedModel(None, None),
            max_length=0,
            root=self.sources.root,
            limit=self._limit,
        )
        dataset = self._run.plugin("dataset")
        try:
            rows = dataset.examples(self._run, request, _KINDS)
        except NotImplementedError as error:
            problem = f"the dataset plugin {dataset.name} gives no examples"
            raise RecipeError(problem, place="dataset") from error
        for number, row in enumerate(rows, 1):
            if self._limit is not None and number > self._limit:
                return
            yield row if isinstance(row, RowError) else _example(row, number)


def example_sources(run: RunContext, written: Any) -> ExampleSources:
    """Sources by what a user wrote: a file, the name of an evaluation set of the recipe, `data`, or
    a source as a mapping. Raises RecipeError."""
    request = run.data_request(LoadedModel(None, None), len(run.recipe.stages) - 1)
    sets = {**request.eval_entries, **({"data": request.entries} if request.entries else {})}
    if isinstance(written, str) and written in sets:
        return ExampleSources(sets[written], request.root, written)
    if isinstance(written, str) and written.lstrip().startswith("{"):
        try:
            written = yaml.safe_load(written)
        except yaml.YAMLError as error:
            problem = f"{written!r:.80} is no mapping in YAML"
            raise RecipeError(problem, place="command line: data") from error
    dataset, root = run.plugin("dataset"), Path.cwd()
    entry = written if isinstance(written, dict) else {"path": str(written)}
    context = {"dataset": dataset.options, "root": root}
    try:
        source = dataset.Entry.model_validate(entry, context=context)
    except ValidationError as failure:
        found = problems_of(failure, ("data",), dataset.Entry)[0]
        known = f"a file, or a set of the recipe: {', '.join(sets)}" if sets else "name a file"
        place = Source("command line").place(found.path)
        raise RecipeError(found.message, place=place, hint=found.hint or known) from failure
    return ExampleSources([source], root, str(entry.get("path") or entry.get("name")))


def _example(row: Row, number: int) -> Example | RowError:
    try:
        match row:
            case Conversation():
                messages, tools = row.messages, row.tools
                end = _answer(messages)
                asked = Conversation(messages[:end], tools, row.variables, row.origin)
                return Example(number, asked, messages[end])
            case Prompt():
                asked = Conversation(row.messages, row.tools, origin=row.origin)
                return Example(number, asked, columns=row.columns)
            case Preference():
                asked = Conversation(row.prompt, row.tools, origin=row.origin)
                return Example(number, asked, row.chosen[0])
            case Unpaired():
                asked = Conversation(row.prompt, row.tools, origin=row.origin)
                return Example(number, asked, row.completion[0] if row.label else None)
    except TunewrightError as error:
        return RowError(error.problem, place=str(row.origin or ""), hint=error.hint)
    return RowError("has no messages to answer", place=str(row.origin or ""))


def _answer(messages: list[Message]) -> int:
    """Place of the last answer of the assistant. Raises RowError."""
    for place in range(len(messages) - 1, 0, -1):
        if messages[place].role == "assistant":
            return place
    raise RowError("has no prompt with an answer")


def _first_medium(example: Example) -> str | None:
    for message in example.conversation.messages:
        if not isinstance(message.content, str):
            for part in message.content:
                if isinstance(part, MediaPart):
                    return part.kind
    return None


def message_json(message: Message) -> dict[str, Any]:
    """A message as JSON, in the form of chat completions, with the arguments of calls parsed."""
    found: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.reasoning is not None:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    for name in ("tool_call_id", "name"):
        if (value := getattr(message, name)) is not None:
            found[name] = value
    return found


def _content(message: Message) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return message.content
    found = []
    for part in message.content:
        if isinstance(part, TextPart):
            found.append({"type": "text", "text": part.text})
        elif isinstance(part, MediaPart):
            found.append({"type": part.kind, part.kind: "" if part.data else part.path})
    return found
