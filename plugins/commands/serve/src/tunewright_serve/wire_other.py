"""Bodies of the other routes: embeddings, scores, tokens, and Anthropic's messages."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunewright_serve.wire import Body, Name, Tool, WireMessage

__all__ = [
    "AnthropicTool",
    "Block",
    "CountBody",
    "DetokenizeBody",
    "EmbeddingsBody",
    "MessagesBody",
    "RerankBody",
    "ScoreBody",
    "TokenizeBody",
]

Texts = str | Annotated[list[str], Field(min_length=1, max_length=1024)]


class EmbeddingsBody(Body):
    model: str | None = None
    input: (
        Texts
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=1024)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: str | None = None


class ScoreBody(Body):
    """text_1: a prompt, or several; text_2: their answers, or several of one prompt."""

    model: str | None = None
    text_1: Texts
    text_2: Texts


class RerankBody(Body):
    model: str | None = None
    query: str
    documents: list[str] = Field(min_length=1, max_length=1024)
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = True


class TokenizeBody(Body):
    """A prompt as it stands, or messages as the template renders them."""

    model: str | None = None
    prompt: str | None = None
    messages: list[WireMessage] | None = Field(None, min_length=1, max_length=10_000)
    tools: list[Tool] | None = Field(None, max_length=256)
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeBody(Body):
    model: str | None = None
    tokens: list[int] = Field(min_length=1)


class ImageSource(Body):
    type: Literal["base64", "url"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class Block(Body):
    """A content block of Anthropic's wire."""

    type: Literal[
        "text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result"
    ]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: Name | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: "str | list[Block] | None" = None
    is_error: bool | None = None
    source: ImageSource | None = None
    cache_control: dict[str, Any] | None = None
    citations: list[Any] | None = Field(None, max_length=0)


class AnthropicMessage(Body):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class AnthropicTool(Body):
    name: Name
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    cache_control: dict[str, Any] | None = None


class AnthropicChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=1)
    display: str | None = None


class CountBody(Body):
    model: str | None = None
    messages: list[AnthropicMessage] = Field(min_length=1, max_length=10_000)
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = Field(None, max_length=256)
    tool_choice: AnthropicChoice | None = None
    thinking: Thinking | None = None


class MessagesBody(CountBody):
    max_tokens: int = Field(ge=1, le=10_000_000)
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    stop_sequences: list[str] | None = Field(None, max_length=16)
    stream: bool | None = None
    # without effect here
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
