"""Bodies of OpenAI's wire: chat completions and completions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ChatBody",
    "CompletionBody",
    "Function",
    "ResponseFormat",
    "SamplingBody",
    "Tool",
    "WireMessage",
    "WirePart",
]

Name = Annotated[str, Field(pattern=r"^[\w.-]{1,128}$")]


class Body(BaseModel):
    """Base of all bodies: strict, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class MediaUrl(Body):
    url: str
    detail: str | None = None


class Sound(Body):
    data: str  # base64
    format: Annotated[str, Field(pattern=r"^[\w.+-]{1,32}$")]


class WirePart(Body):
    type: Literal["text", "image_url", "input_audio", "video_url", "refusal"]
    text: str | None = None
    refusal: str | None = None
    image_url: MediaUrl | str | None = None
    video_url: MediaUrl | str | None = None
    input_audio: Sound | None = None


class CalledFunction(Body):
    name: Name
    arguments: str


class WireCall(Body):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class WireMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[WirePart] | None = None
    name: str | None = None
    tool_calls: list[WireCall] | None = Field(None, max_length=128)
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    # what clients send back as they got it
    annotations: list[Any] | None = Field(None, max_length=0)
    audio: None = None
    function_call: None = None


class Function(Body):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class ChosenName(Body):
    name: str


class ChosenTool(Body):
    type: Literal["function"]
    function: ChosenName


class NamedSchema(Body):
    name: Name
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] | None = None


class SamplingBody(Body):
    """Fields that chat completions and completions share; the second group is vLLM's."""

    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=0, le=10_000_000)
    n: int | None = Field(None, ge=1, le=128)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=1024
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    stop_token_ids: list[int] | None = Field(None, max_length=64)
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None


class ChatBody(SamplingBody):
    messages: list[WireMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=10_000_000)
    max_tokens: int | None = Field(None, ge=1, le=10_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # without effect here
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prediction: None = None
    modalities: list[Literal["text"]] | None = None


class CompletionBody(SamplingBody):
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=1024)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=1024)]
    )
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = Field(None, ge=1, le=128)
    suffix: None = None
