"""Prompts for an environment: with its tools, and with the conversation that it goes on with."""

from dataclasses import replace
from typing import Any

from tunewright import RowError
from tunewright.types import Conversation, Prompt, Row
from tunewright_hf.templates.saved_conversation import COLUMN, to_json


def offered(row: Row | RowError, tools: list[dict[str, Any]]) -> Row | RowError:
    """A prompt with these tools after its own, and with a column that holds its conversation."""
    if not isinstance(row, Prompt):
        return row
    if COLUMN in row.columns:
        problem = f"{COLUMN}: is a column of the prepared rows, call it otherwise"
        return RowError(problem, place=str(row.origin))
    own = {tool["function"]["name"] for tool in row.tools if "function" in tool}
    more = [tool for tool in tools if tool["function"]["name"] not in own]
    both = [*row.tools, *more]
    kept = to_json(Conversation(row.messages, both))
    return replace(row, tools=both, columns=row.columns | {COLUMN: kept})
