"""A conversation as it is kept: its models, settings, and the messages of each side."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunewright_web.chat.targets import ChatModel
from tunewright_web.errors import WebError

__all__ = ["LONGEST", "Call", "Chat", "Media", "Message", "Sampling", "wire_messages"]

LONGEST = 200_000  # characters of one message


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Sampling(Strict):
    """Settings of replies; None: the checkpoint's, or the engine's default. max_tokens: of a reply;
    without it a model that finds no end would fill its context."""

    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    max_tokens: int = Field(1024, ge=1, le=1_000_000)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field([], max_length=16)
    enable_thinking: bool | None = None

    def wire(self) -> dict[str, Any]:
        """Fields of a request."""
        found = self.model_dump(exclude_none=True, exclude={"enable_thinking", "stop"})
        if self.stop:
            found["stop"] = self.stop
        if self.enable_thinking is not None:
            found["chat_template_kwargs"] = {"enable_thinking": self.enable_thinking}
        return found


class Call(Strict):
    """A tool call; arguments: JSON as the model wrote it."""

    id: str
    name: str
    arguments: str = ""


class Media(Strict):
    """A file of the chat's folder."""

    kind: Literal["image", "audio", "video"]
    name: str


class Message(Strict):
    role: Literal["user", "assistant", "tool"]
    content: str = Field("", max_length=10_000_000)
    media: list[Media] = []
    reasoning: str = ""
    calls: list[Call] = []
    call_id: str = ""  # of a tool's result
    name: str = ""  # of that tool
    finish: str = ""  # stop, length, tool_calls, stopped, error
    error: str = ""
    tokens: int = 0
    seconds: float = 0.0


class Chat(Strict):
    """sides: messages of each model; the user's stand in both."""

    id: str
    title: str = ""
    created: float = 0.0
    updated: float = 0.0
    models: list[ChatModel]
    system: str = Field("", max_length=LONGEST)
    tools: list[dict[str, Any]] = Field([], max_length=128)
    sampling: Sampling = Sampling()
    sides: list[list[Message]] = []

    def open_calls(self, side: int) -> list[Call]:
        """Tool calls of the last reply that have no result yet."""
        for number, message in enumerate(reversed(self.sides[side])):
            if message.role == "assistant":
                return message.calls[number:]
            if message.role == "user":
                break
        return []

    def exchanges(self) -> list[tuple[Message, list[list[Message]]]]:
        """Each message of the user, with what followed it on each side."""
        found: list[tuple[Message, list[list[Message]]]] = []
        for side, messages in enumerate(self.sides):
            number = -1
            for message in messages:
                if message.role == "user":
                    number += 1
                    if not side:
                        found.append((message, [[] for _ in self.sides]))
                else:
                    found[number][1][side].append(message)
        return found

    def turn(self, side: int) -> list[Message]:
        """The messages that the last reply answered, or that the next one answers."""
        found = [*self.sides[side]]
        while found and found[-1].role == "assistant":
            found.pop()
        return found

    def cut(self, number: int) -> None:
        """Take back a message of the user, by its number, and all that followed. Raises
        WebError."""
        for side in self.sides:
            places = [place for place, each in enumerate(side) if each.role == "user"]
            if not 0 <= number < len(places):
                raise WebError(f"edit: there is no message {number}", status=422)
            del side[places[number] :]


def wire_messages(messages: list[Message], system: str, media: Any) -> list[dict[str, Any]]:
    """Messages of OpenAI's wire. media: gives the data: URL of a file."""
    found: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in messages:
        made: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.media:
            text = [{"type": "text", "text": message.content}] if message.content else []
            made["content"] = [*(_part(each, media(each)) for each in message.media), *text]
        if message.reasoning:
            made["reasoning_content"] = message.reasoning
        if message.calls:
            made["tool_calls"] = [
                {"id": c.id, "function": {"name": c.name, "arguments": c.arguments}}
                for c in message.calls
            ]
        if message.role == "tool":
            made["tool_call_id"] = message.call_id
        found.append(made)
    return found


def _part(media: Media, url: str) -> dict[str, Any]:
    if media.kind == "audio":
        head, _, data = url.partition(";base64,")
        sound = {"data": data, "format": head.removeprefix("data:audio/")}
        return {"type": "input_audio", "input_audio": sound}
    return {"type": f"{media.kind}_url", f"{media.kind}_url": {"url": url}}


def parse_tools(text: str) -> list[dict[str, Any]]:
    """Tools in OpenAI's format, from JSON that a user wrote. Raises WebError."""
    if not text.strip():
        return []
    hint = 'expected a JSON list such as [{"name": "add", "parameters": {"type": "object"}}]'
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WebError(f"tools: no JSON: {error}", hint, status=422) from error
    found = found if isinstance(found, list) else [found]
    tools = []
    for each in found:
        function = each.get("function", each) if isinstance(each, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise WebError("tools: one has no name", hint, status=422)
        tools.append({"type": "function", "function": function})
    return tools
