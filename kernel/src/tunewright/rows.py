"""Rows of data, as converted by formats. Plain dataclasses: there are millions of them."""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
RowKind = Literal[
    "text",
    "messages",
    "preference",
    "unpaired",
    "prompts",
    "retrieval",
    "labelled",
    "stepwise",
    "ranked",
]


@dataclass(slots=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]  # parsed, never a JSON string
    id: str | None = None


@dataclass(slots=True)
class TextPart:
    text: str
    # written by the dataset in the form of the model's family: control tokens in it are tokens
    control: bool = False


@dataclass(slots=True)
class MediaPart:
    kind: Literal["image", "video", "audio"]
    # path below the media root, made absolute by the dataset; or a data: URL
    path: str
    data: bytes | None = None  # the file itself, in place of the path, until the dataset stores it


@dataclass(slots=True)
class ObjectPart:
    """Name or place of an object in an image. The dataset turns it into text, in the form of the
    model's family, before a template renders it."""

    kind: Literal["ref", "box"]
    text: str = ""  # of a ref
    # of a box: x1, y1, x2, y2 from the left and the top; or x, y of a point
    box: tuple[float, ...] = ()
    scale: Literal["pixels", "unit"] = "pixels"  # of the box: in the image's pixels, or 0 to 1
    image: int = 0  # number of the box's image in the conversation; 0 is the first


Part = TextPart | MediaPart | ObjectPart


@dataclass(slots=True)
class Message:
    role: Role
    content: str | list[Part] = ""
    reasoning: str | None = None  # thinking before the answer; None: none was recorded
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
    """Origin of a row, for errors: `data/a.jsonl:17`."""

    file: str
    line: int  # 1 is the first line, or the first record of a file without lines

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Text:
    """One document for pretraining: text, or parts of text and media."""

    text: str | list[Part]
    origin: Origin | None = None


@dataclass(slots=True)
class Conversation:
    """Messages in order, with the available tools (OpenAI's JSON schema)."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    # for the template, such as enable_thinking
    variables: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(slots=True)
class Preference:
    """A prompt with a chosen and a rejected answer."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    margin: float | None = None
    origin: Origin | None = None


@dataclass(slots=True)
class Ranked:
    """A prompt with two or more answers, best first."""

    prompt: list[Message]
    answers: list[list[Message]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: Origin | None = None


@dataclass(slots=True)
class Unpaired:
    """A prompt with one answer, labelled good (True) or bad (False)."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: Origin | None = None


@dataclass(slots=True)
class Prompt:
    """A prompt for stages that generate; columns go to the reward functions."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(slots=True)
class Retrieval:
    """A query with a document that fits it, and others that do not. No template is applied."""

    query: str
    positive: str
    negatives: list[str] = field(default_factory=list)
    origin: Origin | None = None


@dataclass(slots=True)
class Labelled:
    """A text with its class, its classes, or a number. No template is applied."""

    text: str
    labels: list[str]  # names of classes; a number as text, too
    value: float | None = None  # of a single label that is a number
    origin: Origin | None = None


@dataclass(slots=True)
class Stepwise:
    """A prompt with the steps of an answer, each labelled right (True) or wrong (False)."""

    prompt: list[Message]
    steps: list[str]
    labels: list[bool]  # one for each step
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: Origin | None = None


@dataclass(slots=True)
class RenderedText:
    """Text that is trained as written: no template is applied, no token is added, and special
    tokens spelled in it are tokens."""

    text: str
    #: trained characters [start, end) with their loss weight; in order, not overlapping
    trained: list[tuple[int, int, float]]
    origin: Origin | None = None


Row = (
    Text
    | Conversation
    | Preference
    | Ranked
    | Unpaired
    | Prompt
    | Retrieval
    | Labelled
    | Stepwise
    | RenderedText
)
#: kind of rows → types that a format may give for it
ROW_TYPES: dict[str, tuple[type[Row], ...]] = {
    "text": (Text, RenderedText),
    "messages": (Conversation, RenderedText),
    "preference": (Preference,),
    "unpaired": (Unpaired,),
    "prompts": (Prompt,),
    "retrieval": (Retrieval,),
    "labelled": (Labelled,),
    "stepwise": (Stepwise,),
    "ranked": (Ranked,),
}
