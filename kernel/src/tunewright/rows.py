"""Rows of data, as formats make them of records. Plain dataclasses: there are millions of them."""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
RowKind = Literal["text", "messages", "preference", "unpaired", "prompts"]


@dataclass(slots=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]  # parsed, never a JSON string
    id: str | None = None


@dataclass(slots=True)
class TextPart:
    text: str


@dataclass(slots=True)
class MediaPart:
    kind: Literal["image", "video", "audio"]
    # below the media root, and made a full path when a dataset has checked it; or a data: URL
    path: str


@dataclass(slots=True)
class Message:
    role: Role
    content: str | list[TextPart | MediaPart] = ""
    reasoning: str | None = None  # the thinking before the answer; None: none was recorded
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_call_id: str | None = None  # on role tool: the call that this answers
    name: str | None = None  # on role tool: the tool's name
    weight: float | None = None  # loss weight; None: 1 for the assistant, 0 for all others

    @property
    def loss_weight(self) -> float:
        if self.weight is not None:
            return self.weight
        return 1.0 if self.role == "assistant" else 0.0


@dataclass(slots=True)
class Origin:
    """Where a row came from, for errors: `data/a.jsonl:17`."""

    file: str
    line: int  # 1 is the first line, or the first record of a file without lines

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Text:
    """One document for pretraining."""

    text: str
    origin: Origin | None = None


@dataclass(slots=True)
class Conversation:
    """Messages in order, with the tools (OpenAI's JSON schema) that were on offer."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, Any] = field(
        default_factory=dict
    )  # for the template, such as enable_thinking
    origin: Origin | None = None


@dataclass(slots=True)
class Preference:
    """A prompt with a better and a worse answer."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    margin: float | None = None
    origin: Origin | None = None


@dataclass(slots=True)
class Unpaired:
    """A prompt with one answer that is good (label True) or bad (False)."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: Origin | None = None


@dataclass(slots=True)
class Prompt:
    """A prompt to be answered while training; columns go to the reward functions."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(slots=True)
class RenderedText:
    """Text that is trained as it is written: no template is applied, no token is added, and special
    tokens that it spells are tokens."""

    text: str
    #: what is trained: characters [start, end), and their loss weight; in order, not overlapping
    trained: list[tuple[int, int, float]]
    origin: Origin | None = None


Row = Text | Conversation | Preference | Unpaired | Prompt | RenderedText
#: kind of rows → the types that a format may give for it
ROW_TYPES: dict[str, tuple[type[Row], ...]] = {
    "text": (Text, RenderedText),
    "messages": (Conversation, RenderedText),
    "preference": (Preference,),
    "unpaired": (Unpaired,),
    "prompts": (Prompt,),
}
