"""Bodies of OpenAI's wire: chat completions and completions.

These and their messages are dicts, which hold what a request gives: a model has each of some thirty
fields that a request leaves out, and takes twice as long to check and to make.
"""

from typing import Annotated, Any, Literal, Required

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict  # that of Python 3.11 does not tell which keys are required

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


#: of all bodies: unknown fields are refused
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Body(BaseModel):
    """Base of bodies, and of parts of bodies."""

    model_config = STRICT


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


@with_config(STRICT)
class WireMessage(TypedDict, total=False):
    role: Required[Literal["system", "developer", "user", "assistant", "tool"]]
    content: str | list[WirePart] | None
    name: str | None
    tool_calls: Annotated[list[WireCall], Field(max_length=128)] | None
    tool_call_id: str | None
    reasoning: str | None
    reasoning_content: str | None
    refusal: str | None
    # what clients send back as they got it
    annotations: Annotated[list[Any], Field(max_length=0)] | None
    audio: None
    function_call: None


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


@with_config(STRICT)
class SamplingBody(TypedDict, total=False):
    """Fields that chat completions and completions share; the second group is vLLM's."""

    model: str | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    top_p: Annotated[float, Field(gt=0, le=1)] | None
    n: Annotated[int, Field(ge=1, le=128)] | None
    stop: str | Annotated[list[str], Field(max_length=16)] | None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)]
        | None
    )
    stream: bool | None
    stream_options: StreamOptions | None
    user: str | None

    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None
    min_p: Annotated[float, Field(ge=0, le=1)] | None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None
    stop_token_ids: Annotated[list[int], Field(max_length=64)] | None
    ignore_eos: bool | None
    skip_special_tokens: bool | None


@with_config(STRICT)
class ChatBody(SamplingBody, total=False):
    messages: Required[Annotated[list[WireMessage], Field(min_length=1, max_length=10_000)]]
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None
    logprobs: bool | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None
    tools: Annotated[list[Tool], Field(max_length=256)] | None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None
    parallel_tool_calls: bool | None
    response_format: ResponseFormat | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None
    chat_template_kwargs: dict[str, Any] | None
    # without effect here
    metadata: dict[str, str] | None
    store: Literal[False] | None
    service_tier: Literal["auto", "default"] | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prediction: None
    modalities: list[Literal["text"]] | None


@with_config(STRICT)
class CompletionBody(SamplingBody, total=False):
    prompt: Required[
        str
        | Annotated[list[str], Field(min_length=1, max_length=1024)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=1024)]
    ]
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None
    echo: bool | None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None
    best_of: Annotated[int, Field(ge=1, le=128)] | None
    suffix: None
