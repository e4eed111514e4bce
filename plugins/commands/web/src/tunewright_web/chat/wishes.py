"""Bodies of the chat's API."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunewright_web.chat.conversation import LONGEST, Media, Sampling
from tunewright_web.chat.targets import ChatModel

__all__ = ["ChatChange", "NewChat", "PromptQuery", "Result", "Wish"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewChat(Body):
    """models: one, or two that answer side by side."""

    models: list[ChatModel] = Field(min_length=1, max_length=2)
    system: str = Field("", max_length=LONGEST)
    tools: list[dict[str, Any]] = Field([], max_length=128)
    sampling: Sampling = Sampling()


class ChatChange(Body):
    """Settings to change; those that are left out stay."""

    system: str | None = Field(None, max_length=LONGEST)
    tools: list[dict[str, Any]] | None = Field(None, max_length=128)
    sampling: Sampling | None = None


class Result(Body):
    """Result of the tool call with this id."""

    id: str
    content: str = Field("", max_length=LONGEST)


class Wish(Body):
    """A message; or results of tool calls; or another reply to the last message.

    edit: number of the user's message that this one replaces, from 0; all that followed is
    forgotten. media: files that were sent to /chats/{id}/media.
    """

    content: str = Field("", max_length=10_000_000)
    media: list[Media] = Field([], max_length=16)
    edit: int | None = None
    results: list[Result] = Field([], max_length=128)
    regenerate: bool = False


class PromptQuery(Body):
    side: int = Field(0, ge=0, le=1)
