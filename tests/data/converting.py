"""What the tests of formats share."""

from typing import Any

from tunewright import Format, RowError
from tunewright.types import Conversation, Message, Origin, Row, RowsRequest
from tunewright_formats.alpaca import Alpaca
from tunewright_formats.openai import OpenAi
from tunewright_formats.sharegpt import ShareGpt
from tunewright_formats.text import PlainText

FORMATS: dict[str, type[Format]] = {"alpaca": Alpaca, "sharegpt": ShareGpt, "openai": OpenAi, "text": PlainText}


def convert(name: str, record: Any, rows: Any = "messages", **names: dict[str, str]) -> Row | RowError:
    """One record, which stands in line 7 of a file."""
    plugin: Any = FORMATS[name](FORMATS[name].Options(), name)
    request = RowsRequest(iter([(Origin("a.jsonl", 7), record)]), rows, **names)
    (item,) = plugin.convert_rows(request)
    return item


def messages(name: str, record: Any, **names: dict[str, str]) -> list[Message]:
    row = convert(name, record, **names)
    assert isinstance(row, Conversation), row
    return row.messages


def problem(name: str, record: Any, **names: dict[str, str]) -> str:
    """The error of a record that cannot be used, without its place, which is checked here."""
    error = convert(name, record, **names)
    assert isinstance(error, RowError), error
    assert error.place == "a.jsonl:7"
    return error.problem
