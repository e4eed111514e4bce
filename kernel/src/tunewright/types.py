"""Requests and results of the steps.

A request is mutable: an accelerator edits it before the step runs. Types of torch and transformers
are written as Any: this file imports neither.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewright.embedding import Embedding
from tunewright.rendering import Rendered, Span, TemplateRequest
from tunewright.rows import (
    ROW_TYPES,
    Conversation,
    Labelled,
    MediaPart,
    Message,
    ObjectPart,
    Origin,
    Part,
    Preference,
    Prompt,
    Ranked,
    RenderedText,
    Retrieval,
    Role,
    Row,
    RowKind,
    Stepwise,
    Text,
    TextPart,
    ToolCall,
    Unpaired,
)
from tunewright.run_context import RunContext

if TYPE_CHECKING:
    from tunewright.recipe import Training

__all__ = [
    "ROW_TYPES",
    "AdapterRequest",
    "Conversation",
    "Data",
    "DataRequest",
    "Embedding",
    "ExportRequest",
    "Head",
    "Labelled",
    "LoadRequest",
    "LoadedModel",
    "MediaPart",
    "Message",
    "ModelRole",
    "ObjectPart",
    "OptimizerRequest",
    "Origin",
    "Part",
    "Preference",
    "Prompt",
    "Ranked",
    "Rendered",
    "RenderedText",
    "Retrieval",
    "RewardRequest",
    "Role",
    "Row",
    "RowKind",
    "RowsRequest",
    "RunContext",
    "SchedulerRequest",
    "Span",
    "StageResult",
    "Stepwise",
    "TemplateRequest",
    "Text",
    "TextPart",
    "ToolCall",
    "TrainRequest",
    "Unpaired",
    "Weights",
]

Head = Literal["causal_lm", "score", "value", "classes", "steps"]
ModelRole = Literal["policy", "reference", "reward", "critic"]
Weights = Literal["load", "meta", "none"]


@dataclass(slots=True)
class LoadedModel:
    """A model in memory, with what later steps need to know about it."""

    model: Any  # torch.nn.Module; None with weights="none"
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    processor: Any = None  # transformers.ProcessorMixin, for models with media
    template: str | None = None  # the family's template for this checkpoint
    #: module name endings that adapters never touch: heads, routers, media towers
    adapter_exclude: tuple[str, ...] = ()
    #: classes of linear layers that adapters may target, besides torch.nn.Linear and Conv1D
    linear_types: tuple[type, ...] = ()
    #: full names of the modules whose weights are quantized
    quantized: frozenset[str] = frozenset()
    #: names of the parameters that the stage trains, set by apply_adapter. A checkpoint holds all
    #: of them, even while an optimizer that switches blocks has frozen some; None: all that require
    #: a gradient when training begins
    trained: frozenset[str] | None = None
    learning_rate_scales: dict[str, float] = field(default_factory=dict)  # parameter name → factor
    saves: Literal["model", "adapter"] = "model"  # what a save of this model contains
    #: options of `template` that suit this checkpoint; what the recipe sets takes precedence
    template_options: dict[str, Any] = field(default_factory=dict)
    #: ids of the tokens that the recipe adds to the vocabulary
    new_tokens: tuple[int, ...] = ()
    #: with weights "meta": tunewright_hf.models.deferred.DeferredWeights, which loads them
    deferred: Any = None
    #: full names of modules and parameters that are not trained: media towers and projectors,
    #: unless the family's options say so
    frozen: tuple[str, ...] = ()
    #: further inputs of a batch with media: (inputs, labels, processor) → inputs to add
    media_inputs: Callable[[dict[str, Any], Any, Any], dict[str, Any]] | None = None


@dataclass(slots=True)
class LoadRequest:
    model: str  # hub id, local folder, or "tiny"
    head: Head = "causal_lm"
    dtype: str | None = None  # float32, bfloat16, float16; None: the family's own option
    attention: str | None = None  # transformers' attn_implementation; None: the family's own option
    trust_remote_code: bool = False  # granted on the command line only
    seed: int = 42  # for weights that are initialised, not loaded: tiny models and new heads
    trainable: bool = True
    #: load: as they are stored. meta: parameters without storage, for sharded loading, where the
    #: family can; none: the tokenizer only
    weights: Weights = "load"
    device: str | None = None  # such as cuda:0; None: the family's own option
    tiny_of: str | None = None  # with model "tiny": the checkpoint that it replaces (--smoke)
    #: transformers' quantization_config, or tunewright_hf.models.quantizers.StoredQuantization or
    #: AfterLoading, set by a quantizer's prepare_load
    quantization: Any = None
    # further arguments of from_pretrained
    model_arguments: dict[str, Any] = field(default_factory=dict)
    #: called with the model's config before the model is built, to change it; set by accelerators
    config_edits: list[Callable[[Any], None]] = field(default_factory=list)
    loader: Callable[["LoadRequest"], LoadedModel] | None = None  # set by an accelerator
    media: bool = True  # with media towers and processor, where the family has them
    labels: tuple[str, ...] = ()  # of the heads classes and steps: names of their outputs


@dataclass(slots=True)
class AdapterRequest:
    loaded: LoadedModel
    head: Head = "causal_lm"
    adapter_path: Path | None = None  # folder with trained adapter weights, to use or continue from
    trainable: bool = True
    seed: int = 42


@dataclass(slots=True)
class RowsRequest:
    """One source's records, read but not yet converted."""

    records: Iterator[tuple[Origin, Any]]  # Any: a parsed JSON value, or a line of a text file
    rows: RowKind
    columns: dict[str, str] = field(default_factory=dict)  # the format's column → the source's
    tags: dict[str, str] = field(default_factory=dict)  # the format's roles and keys → the source's
    #: called once for each record that holds columns or message keys that the format does not
    #: read, with their names; may raise RowError, to be yielded in place of the record's rows
    unread: Callable[[Collection[str], Collection[str]], None] | None = None
    #: records come from Arrow, which gives all objects of a column the same keys, with null where
    #: a row had none
    padded: bool = False


@dataclass(slots=True)
class DataRequest:
    entries: list[Any]  # the recipe's `data`: the dataset plugin's own Entry objects
    eval_entries: dict[str, list[Any]]  # the recipe's `eval_data`, by name
    rows: RowKind  # what the stage trains on
    loaded: LoadedModel
    max_length: int  # tokens
    seed: int = 42
    root: Path = field(default_factory=Path)  # base of relative paths: the recipe's folder
    limit: int | None = None  # rows per source (--smoke)
    #: its prompts stand before the texts of `retrieval` rows, or make one text of two
    embedding: Embedding = field(default_factory=Embedding)
    #: tools that an environment offers in every prompt; its rows keep their conversations. None:
    #: there is no environment
    tools: list[dict[str, Any]] | None = None
    #: (i, n): prepare only every n-th part of `entries`, from number i on, on one of n hosts
    shard: tuple[int, int] = (0, 1)


@dataclass(slots=True)
class Data:
    """Tokenised rows.

    For `text` and `messages` a row has input_ids and labels, lists of T ints (-100: not trained),
    and loss_weights, a list of T floats, only where a message has a weight of its own. For
    `preference`: prompt_ids, chosen_ids, rejected_ids; for `unpaired`: prompt_ids, completion_ids,
    label; for `prompts`: prompt_ids, the columns of the reward functions, and, with an environment,
    prompt_conversation (tunewright_hf.templates.saved_conversation); for `retrieval`:
    query_ids, and document_ids, a list of such lists, of which the first fits the query (with a
    pair_prompt, query_ids is empty, and each of document_ids is the query with a document); for
    `labelled`: input_ids, names, a list of its classes, and value, a number or None; for
    `stepwise`: input_ids, and labels: at the last token of each step 1 (right) or 0, else -100; for
    `ranked`: prompt_ids, and answer_ids, a list of such lists, best first.

    Where LoadedModel has a processor, rows also have `media`: of each image, video and audio its
    kind and path, in the order of the text (of the prompt, where there is one). Their tokens are
    in the ids; the files are decoded when a batch is made.
    """

    train: Any  # datasets.Dataset, or a tunewright_hf.batching.row_stream.RowStream
    evals: dict[str, Any] = field(default_factory=dict)  # name → datasets.Dataset
    rows_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # reason → rows
    notes: list[str] = field(default_factory=list)  # what was detected or decided, one line each
    fingerprint: str = ""  # of the sources' bytes, the template and the options
    #: epoch (0 is the first) → row numbers in train, a NumPy array in training order, as many in
    #: every epoch. None: all rows once, shuffled by the trainer
    order: Callable[[int], Any] | None = None
    #: rows of each source, in order, where the trainer chooses sources by their loss
    #: (tunewright_hf.batching.online_mixing); None: it does not
    mixed_online: tuple[int, ...] | None = None
    #: base of relative paths in `media`; None: they are absolute
    media_root: Path | None = None


@dataclass(slots=True)
class OptimizerRequest:
    parameters: list[tuple[str, Any]]  # (name, torch.nn.Parameter), all of them trainable
    model: Any
    learning_rate: float
    weight_decay: float
    learning_rate_scales: dict[str, float] = field(default_factory=dict)  # parameter name → factor
    total_steps: int | None = None  # optimizer steps of the stage


@dataclass(slots=True)
class SchedulerRequest:
    optimizer: Any  # torch.optim.Optimizer
    total_steps: int  # optimizer steps of the stage, warm-up included
    warmup_steps: int  # optimizer steps


@dataclass(slots=True)
class RewardRequest:
    """Completions to be scored."""

    completions: list[str]  # without stop token
    #: columns of the completions' rows by name, each as long as completions; includes `prompts`,
    #: the rendered prompts
    columns: dict[str, list[Any]] = field(default_factory=dict)
    policy: LoadedModel | None = None  # the model that is trained


@dataclass(slots=True)
class TrainRequest:
    loaded: LoadedModel
    data: Data
    training: "Training"
    folder: Path  # of this stage: checkpoints/ and model/ go below it
    models: dict[ModelRole, LoadedModel] = field(default_factory=dict)  # others the stage declares
    checkpoint: Path | None = None  # folder/checkpoints/step-N, complete, to resume from
    #: true after Ctrl-C or SIGTERM: save, then raise Stopped
    stop_requested: Callable[[], bool] = lambda: False
    number: int = 1  # of this stage among the recipe's; 1 is the first
    #: tunewright_hf.distributed.sharding.ShardingStrategy, set by an accelerator; None: no sharding
    sharding: Any = None
    #: called by tunewright_hf.training.fit.fit in its place, as (run, request, make, stage=…); set
    #: by tunewright_hf.planning
    train_with: Callable[..., "StageResult"] | None = None
    #: called in turn with each collated batch, in training and evaluation, and return the batch to
    #: use; set by accelerators
    batch_edits: list[Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=list)


@dataclass(slots=True)
class ExportRequest:
    """A trained model that is written in another format."""

    loaded: LoadedModel  # an adapter is not merged yet; may be changed in place
    folder: Path  # exists and is empty; becomes the export when all of it is written
    checkpoint: str  # hub id or folder of the model that was trained
    say: Callable[[str], None]  # prints one line for the user


@dataclass(slots=True)
class StageResult:
    path: Path  # folder with the trained weights, the tokenizer and its chat template
    saves: Literal["model", "adapter"]  # adapter: they need the model that the recipe names
    steps: int = 0
    tokens: int = 0  # trained and not, without padding
    metrics: dict[str, float] = field(default_factory=dict)
