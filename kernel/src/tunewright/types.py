"""The words that the kernel and its plugins share: rows of data, and the requests of the steps.

Rows are plain dataclasses, because millions of them are made. A request is mutable: an accelerator
edits it before the step runs. Types of torch and transformers are written as Any: this file imports
neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
RowKind = Literal["text", "messages", "preference", "unpaired", "prompts"]
Head = Literal["causal_lm", "score", "value"]
ModelRole = Literal["policy", "reference", "reward", "critic"]


# ---- rows: what a format makes of a source's records -------------------------------------------


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


Row = Text | Conversation | Preference | Unpaired | Prompt
ROW_TYPES: dict[str, type[Row]] = {
    "text": Text,
    "messages": Conversation,
    "preference": Preference,
    "unpaired": Unpaired,
    "prompts": Prompt,
}


# ---- what the steps are asked, and what they give ----------------------------------------------


@dataclass(slots=True)
class LoadedModel:
    """A model in memory, with what later steps need to know about its family."""

    model: Any  # torch.nn.Module
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    processor: Any = None  # transformers.ProcessorMixin, for models with media
    template: str | None = None  # the family's own template for this checkpoint
    adapter_exclude: tuple[
        str, ...
    ] = ()  # module name endings that adapters never touch: heads, routers, towers
    learning_rate_scales: dict[str, float] = field(
        default_factory=dict
    )  # parameter name → factor (LoRA+)
    saves: Literal["model", "adapter"] = "model"  # what a save of this model holds


@dataclass(slots=True)
class LoadRequest:
    model: str  # hub id, local folder, or "tiny"
    head: Head = "causal_lm"
    dtype: str | None = None  # float32, bfloat16, float16; None: the family's own option
    attention: str | None = None  # transformers' attn_implementation; None: the family's own option
    trust_remote_code: bool = False  # granted on the command line only
    seed: int = 42  # of the weights that are made, not loaded: tiny twins and new heads
    trainable: bool = True
    #: load: as they are stored; meta: parameters without storage, for sharded loading; none: the
    #: tokenizer only
    weights: Literal["load", "meta", "none"] = "load"
    quantization: Any = None  # transformers' quantization_config, set by a quantizer's prepare_load
    model_arguments: dict[str, Any] = field(default_factory=dict)  # more for from_pretrained
    loader: Callable[["LoadRequest"], LoadedModel] | None = (
        None  # another loader, set by an accelerator
    )


@dataclass(slots=True)
class AdapterRequest:
    loaded: LoadedModel
    head: Head = "causal_lm"
    adapter_path: Path | None = (
        None  # a folder with this adapter's trained weights, to go on from or to use
    )
    trainable: bool = True
    seed: int = 42


@dataclass(slots=True)
class RowsRequest:
    """One source's records, read but not yet understood."""

    records: Iterator[tuple[Origin, Any]]  # Any: a parsed JSON value, or a string of a text file
    rows: RowKind
    columns: dict[str, str] = field(
        default_factory=dict
    )  # the format's name for a column → the source's
    tags: dict[str, str] = field(
        default_factory=dict
    )  # the format's role and key names → the source's


@dataclass(slots=True)
class DataRequest:
    entries: list[Any]  # the recipe's `data`: the dataset plugin's own Entry objects
    eval_entries: dict[str, list[Any]]  # the recipe's `eval_data`, by name
    rows: RowKind  # the sort that the stage needs
    loaded: LoadedModel
    max_length: int  # tokens
    seed: int = 42
    root: Path = field(default_factory=Path)  # relative paths start here: the recipe's folder
    limit: int | None = None  # rows per source (--smoke)


@dataclass(slots=True)
class Data:
    """Tokenised rows. For `text` and `messages` a row has input_ids and labels, lists of T ints
    (-100: not trained), and loss_weights, a list of T floats, only where a message has a weight of
    its own. For `preference`: prompt_ids, chosen_ids, rejected_ids; for `unpaired`: prompt_ids,
    completion_ids, label; for `prompts`: prompt_ids and the columns of the reward functions.
    """

    # datasets.Dataset; or rows that are read while training goes on:
    # tunewright_hf.batching.row_stream.RowStream
    train: Any
    evals: dict[str, Any] = field(default_factory=dict)  # name → datasets.Dataset
    rows_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # reason → rows
    notes: list[str] = field(default_factory=list)  # what was detected or decided, one line each
    fingerprint: str = ""  # of the sources' bytes, the template and the options
    order: Callable[[int], Any] | None = (
        None  # epoch (0 is the first) → its row numbers in train, a NumPy array in
    )
    # the order of training; as many in every epoch. None: all rows once, shuffled by the trainer


@dataclass(slots=True)
class Span:
    """Characters [start, end) of a rendered text."""

    start: int
    end: int
    weight: float = 1.0  # loss weight of these characters


@dataclass(slots=True)
class TemplateRequest:
    conversation: Conversation
    add_generation_prompt: bool = False
    special_tokens: dict[str, str] = field(
        default_factory=dict
    )  # bos_token, eos_token, … of the tokenizer
    tokenizer: Any = None  # for `auto` only: every other template is rendered without one


@dataclass(slots=True)
class Rendered:
    text: str
    trained: list[Span] = field(
        default_factory=list
    )  # what the model is trained to produce, in order
    untrusted: list[Span] = field(
        default_factory=list
    )  # users', systems' and tools' text that spells control tokens
    answers: list[Span] = field(
        default_factory=list
    )  # assistants' text that spells stop or role tokens


@dataclass(slots=True)
class OptimizerRequest:
    parameters: list[tuple[str, Any]]  # (name, torch.nn.Parameter), all of them trainable
    model: Any
    learning_rate: float
    weight_decay: float
    learning_rate_scales: dict[str, float] = field(default_factory=dict)  # parameter name → factor
    total_steps: int | None = None


@dataclass(slots=True)
class TrainRequest:
    loaded: LoadedModel
    data: Data
    training: Any  # recipe.Training
    folder: Path  # of this stage: checkpoints/ and model/ go below it
    models: dict[ModelRole, LoadedModel] = field(
        default_factory=dict
    )  # the others that the stage declares
    checkpoint: Path | None = None  # folder/checkpoints/step-N, complete, to resume from
    stop_requested: Callable[[], bool] = lambda: (
        False
    )  # true after Ctrl-C or SIGTERM: save, then raise Stopped
    number: int = 1  # of this stage among the recipe's; 1 is the first
    # tunewright_hf.distributed.sharding.Spread, set by an accelerator: how the model lies over all
    # processes
    spread: Any = None


@dataclass(slots=True)
class StageResult:
    path: Path  # folder with the trained weights, the tokenizer and its chat template
    saves: Literal["model", "adapter"]  # adapter: they need the model that the recipe names
    steps: int = 0
    tokens: int = 0  # trained and not, padding left out
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class GenerateRequest:
    conversation: Conversation
    max_new_tokens: int = 512
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()  # strings, besides the template's own stop tokens


@dataclass(slots=True)
class Reply:
    """A piece of an answer. The last piece has a finish_reason."""

    text: str
    finish_reason: Literal["stop", "length"] | None = None
