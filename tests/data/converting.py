"""Helpers for the tests of formats."""

from typing import Any

from tunewright import Format, RowError
from tunewright.types import Conversation, Message, Origin, Row, RowsRequest
from tunewright_formats.alpaca import Alpaca
from tunewright_formats.labelled import TextsWithLabels
from tunewright_formats.openai import OpenAi
from tunewright_formats.preference import PreferencePairs
from tunewright_formats.prompt_completion import PromptCompletion
from tunewright_formats.prompts import Prompts
from tunewright_formats.ranking import Ranking
from tunewright_formats.rendered import RenderedFormat
from tunewright_formats.retrieval import QueriesWithDocuments
from tunewright_formats.sharegpt import ShareGpt
from tunewright_formats.stepwise import LabelledSteps
from tunewright_formats.text import PlainText
from tunewright_formats.unpaired import UnpairedAnswers

FORMATS: dict[str, type[Format]] = {
    "alpaca": Alpaca,
    "sharegpt": ShareGpt,
    "openai": OpenAi,
    "text": PlainText,
    "prompt_completion": PromptCompletion,
    "preference": PreferencePairs,
    "ranking": Ranking,
    "unpaired": UnpairedAnswers,
    "prompts": Prompts,
    "labelled": TextsWithLabels,
    "stepwise": LabelledSteps,
    "retrieval": QueriesWithDocuments,
    "rendered": RenderedFormat,
}


def convert_all(
    name: str, record: Any, rows: Any = None, options: Any = None, **names: Any
) -> list[Row | RowError]:
    """Convert one record, as line 7 of a file."""
    plugin: Any = FORMATS[name](FORMATS[name].Options.model_validate(options or {}), name)
    request = RowsRequest(iter([(Origin("a.jsonl", 7), record)]), rows or plugin.rows[0], **names)
    return list(plugin.convert_rows(request))


def convert(name: str, record: Any, rows: Any = None, **names: Any) -> Row | RowError:
    (item,) = convert_all(name, record, rows, **names)
    return item


def matching(record: Any) -> list[str]:
    return [name for name, plugin in FORMATS.items() if plugin.matches(record)]


def messages(name: str, record: Any, **names: Any) -> list[Message]:
    row = convert(name, record, **names)
    assert isinstance(row, Conversation), row
    return row.messages


def problem(name: str, record: Any, **names: Any) -> str:
    """The error of a record that cannot be used, without its place, which is checked here."""
    error = convert(name, record, **names)
    assert isinstance(error, RowError), error
    assert error.place == "a.jsonl:7"
    return error.problem
