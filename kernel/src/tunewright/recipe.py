"""Fields of a recipe. Sections that name plugins follow from the installed kinds.

The kernel knows no field of a plugin's section: `check.py` validates it with that plugin's Options.
"""

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from tunewright.kinds import Kind, sections
from tunewright.launch_section import Launch
from tunewright.output_section import folded
from tunewright.urls import is_url, mask_url

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_SECRET = re.compile(r"token$|secret|password|api_?key$|credential", re.IGNORECASE)
_MOST = 2**31  # limit of counts: more is a mistake
PATH: Any = {"widget": "path"}
BASIC: Any = {"tier": "basic"}  # for forms: fields that are shown first
ADVANCED: Any = {"tier": "advanced"}  # for forms and help: fields that most recipes do not set


class Section(BaseModel):
    """The plugin that a section names, with its options."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class Training(BaseModel):
    """Hyperparameters of every stage."""

    model_config = _STRICT

    learning_rate: float = Field(5e-5, gt=0, le=1e6, json_schema_extra=BASIC)
    """Peak learning rate."""
    learning_rate_scales: dict[str, float] = Field(default_factory=dict, json_schema_extra=ADVANCED)
    """Factors of the learning rate: regular expression, searched in parameter names, such as
    embed_tokens or visual → factor. The first that matches counts."""
    layer_lr_decay: float = Field(1.0, gt=0, le=1, json_schema_extra=ADVANCED)
    """Layer-wise decay of the learning rate (arXiv:1801.06146): the last layer and the output head
    have the full rate, each layer below it this share of the one above, embeddings and media towers
    that of the first layer once more. 1: all the same."""
    epochs: float = Field(1.0, gt=0, le=1e6, json_schema_extra=BASIC)
    """Passes over the data. May be a fraction."""
    max_steps: int | None = Field(None, gt=0, le=_MOST)
    """Optimizer steps, in place of epochs."""
    per_device_train_batch_size: int = Field(
        8, gt=0, le=_MOST, json_schema_extra={**BASIC, "unit": "examples"}
    )
    """Examples per forward pass on each device. With packing: packed sequences; with batching
    token_budget: their mean number."""
    per_device_eval_batch_size: int = Field(8, gt=0, le=_MOST)
    """Examples per forward pass in evaluation."""
    gradient_accumulation_steps: int = Field(
        1, gt=0, le=_MOST, json_schema_extra={**BASIC, "unit": "passes"}
    )
    """Forward and backward passes per optimizer step."""
    rows_per_step: int | None = Field(None, gt=0, le=_MOST)
    """Examples per optimizer step on all devices together, in place of gradient_accumulation_steps,
    which then follows from the number of processes. With packing: packed sequences. Goes with
    batching random or length_grouped."""
    batching: Literal["random", "length_grouped", "token_budget"] = "token_budget"
    """How examples are batched when packing is off. random: shuffled. length_grouped: similar
    lengths together. token_budget: similar lengths, up to tokens_per_batch tokens (least
    padding)."""
    tokens_per_batch: int | None = Field(None, gt=0, le=_MOST)
    """Tokens per forward pass with batching token_budget, padding included. Default: so many that
    an epoch has about as many steps as with per_device_train_batch_size."""
    max_length: int = Field(2048, gt=1, le=_MOST, json_schema_extra={**BASIC, "unit": "tokens"})
    """Maximum tokens of an example. Longer ones are handled as dataset.truncate says."""
    dataloader_workers: int | None = Field(None, ge=0, le=1024, json_schema_extra=ADVANCED)
    """Processes per rank that prepare batches. Default: up to 4, by cores, for models with media,
    which they decode; 0 for text."""
    unreadable_media: Literal["error", "skip"] = Field("error", json_schema_extra=ADVANCED)
    """What is done if an image, video or audio cannot be read when a batch is made. error: the run
    ends. skip: its example is not trained, and a warning counts it; for sft and pretrain."""
    lr_scheduler_type: str | None = None
    """Learning-rate schedule, by name. Default: cosine. `scheduler:` also takes its options."""
    warmup_steps: float = Field(0.0, ge=0, le=_MOST, json_schema_extra=BASIC)
    """Optimizer steps of linear warm-up; below 1, their share of all steps."""
    weight_decay: float = Field(0.0, ge=0, le=1e6)
    """Weight decay of matrices. Biases and norms are not decayed."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Maximum gradient norm. 0: no clipping."""
    max_bad_steps: int = Field(3, ge=1, le=_MOST, json_schema_extra=ADVANCED)
    """Stop after so many steps in a row whose loss or gradients are not finite. Their updates are
    skipped."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Random seed."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"] = "auto"
    """Precision of the forward and backward pass. auto: bf16 on GPUs that support it and on CPUs
    with AMX, else fp32. Trained weights and optimizer states are kept in fp32, or with pure_bf16,
    like the gradients, in bf16: half the memory (8 bytes per trained parameter with AdamW)."""
    stochastic_rounding: bool = Field(False, json_schema_extra=ADVANCED)
    """With pure_bf16: round weights and optimizer states up or down at random (arXiv:2010.06192),
    so that small updates are not lost."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    logging_steps: int = Field(10, gt=0, le=_MOST)
    """Optimizer steps between two log entries."""
    save_steps: int | None = Field(None, gt=0, le=_MOST, json_schema_extra=BASIC)
    """Optimizer steps between two checkpoints. Default: a checkpoint only when interrupted."""
    saves_per_epoch: int | None = Field(None, gt=0, le=_MOST, json_schema_extra=ADVANCED)
    """Checkpoints per pass over the data, evenly spread, in place of save_steps."""
    save_total_limit: int = Field(3, gt=0, le=_MOST)
    """Checkpoints that are kept. The best one is kept too with load_best_model_at_end."""
    eval_steps: int | None = Field(None, gt=0, le=_MOST, json_schema_extra=BASIC)
    """Optimizer steps between two evaluations. Default: after every epoch."""
    evals_per_epoch: int | None = Field(None, gt=0, le=_MOST, json_schema_extra=ADVANCED)
    """Evaluations per pass over the data, evenly spread, in place of eval_steps."""
    load_best_model_at_end: bool = False
    """Save the weights of the best evaluation as the result. A checkpoint is written at each
    evaluation that is better than all before."""
    metric_for_best_model: str | None = Field(None, json_schema_extra=ADVANCED)
    """Metric to compare: METRIC, or NAME_METRIC where there are several evaluation sets, such as
    validation_loss. Default: the loss of the first set."""
    greater_is_better: bool | None = Field(None, json_schema_extra=ADVANCED)
    """Whether a higher metric is better. Default: yes, unless its name ends in loss."""
    early_stopping_patience: int | None = Field(None, gt=0, le=_MOST)
    """Stop after so many evaluations in a row without improvement."""
    early_stopping_threshold: float = Field(0.0, ge=0, json_schema_extra=ADVANCED)
    """Smallest change of the metric that counts as an improvement."""

    @field_validator("learning_rate_scales")
    @classmethod
    def _are_scales(cls, scales: dict[str, float]) -> dict[str, float]:
        for pattern, scale in scales.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
            if not 0 <= scale <= 1e6:
                raise ValueError(f"{pattern!r} has factor {scale:g}, expected 0 to 1e6")
        return scales

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.tokens_per_batch is not None and self.batching != "token_budget":
            raise ValueError("tokens_per_batch goes with batching: token_budget")
        if self.rows_per_step and self.batching == "token_budget":
            raise ValueError("rows_per_step goes with batching: random or length_grouped")
        if self.rows_per_step and self.gradient_accumulation_steps > 1:
            raise ValueError("rows_per_step and gradient_accumulation_steps exclude each other")
        for steps, share in (("save_steps", "saves_per_epoch"), ("eval_steps", "evals_per_epoch")):
            if getattr(self, steps) and getattr(self, share):
                raise ValueError(f"{steps} and {share} exclude each other")
        if self.stochastic_rounding and self.precision != "pure_bf16":
            raise ValueError("stochastic_rounding goes with precision: pure_bf16")
        if self.early_stopping_threshold and not self.early_stopping_patience:
            raise ValueError("early_stopping_threshold goes with early_stopping_patience")
        chosen = self.metric_for_best_model is not None or self.greater_is_better is not None
        if chosen and not (self.load_best_model_at_end or self.early_stopping_patience):
            raise ValueError(
                "the best evaluation is used by load_best_model_at_end or early_stopping_patience; "
                "set one of them"
            )
        return self


class StageSection(Section):
    """One entry of `stages`. What it does not set, the recipe's own sections set."""

    data: list[dict[str, Any]] | None = None
    eval_data: dict[str, list[dict[str, Any]]] | None = None
    training: dict[str, Any] = Field(default_factory=dict)  # overrides the recipe's own


_OWN = ("data", "eval_data", "training")  # fields of a stage; if absent, the recipe's own apply


class RecipeFields(BaseModel):
    """Fields of a recipe that name no plugin."""

    model_config = _STRICT

    model: str = Field(min_length=1, json_schema_extra=PATH)
    """Hub id, local folder, or `tiny`: the family's tiny model with random weights."""
    data: list[dict[str, Any]] = Field(default_factory=list)
    """Training data: a list of sources, as the dataset plugin describes them."""
    eval_data: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    """Evaluation data: name → list of sources."""
    stages: list[StageSection] = Field(min_length=1)
    """Training stages in order. `stage` is short for a list of one."""
    training: Training = Training()
    """Hyperparameters of every stage."""
    launch: Launch = Launch()
    """Processes and nodes."""
    output: str = Field(min_length=1, json_schema_extra=PATH)
    """Run folder, relative to the current folder; or {path: FOLDER, mirror: ADDRESS}, with a copy
    of checkpoints and results on an object store, such as s3://bucket/run."""
    mirror: SkipJsonSchema[str | None] = Field(None, min_length=1)  # written below `output`
    data_root: str | None = Field(None, json_schema_extra={**PATH, **ADVANCED})
    """Folder from which relative data paths start. Default: the recipe's folder."""

    @field_validator("model", "output", "data_root")
    @classmethod
    def _is_a_path(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text and is_url(text) and info.field_name == "output":
            raise ValueError(
                f"{mask_url(text)!r} is an address, and a run folder is local: "
                "output: {path: runs/first, mirror: ADDRESS} copies it there"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text or ""):
            raise ValueError("holds control characters")
        if text and text.startswith("~"):
            try:
                Path(text).expanduser()
            except RuntimeError as error:
                raise ValueError(f"no home folder is known for {text.split('/')[0]!r}") from error
        return text

    def as_mapping(self) -> dict[str, Any]:
        """The recipe as JSON values, in the usual order of recipes."""
        values = _without_none(self.model_dump(mode="json"))
        for section in ("training", "launch"):
            values[section] = _without_none(values[section])
        values["stages"] = [
            {key: stage[key] for key in stage if key not in _OWN or stage[key]}
            for stage in values["stages"]
        ]
        values = folded(values)
        first, last = ("model", *sections()), ("output", "data_root")
        names = [*first, *(name for name in values if name not in first + last), *last]
        return {name: values[name] for name in names if name in values}

    def as_dict(self) -> dict[str, Any]:
        """`as_mapping` with secrets masked, as it is written to the run folder."""
        masked: dict[str, Any] = mask(self.as_mapping())
        return masked


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in values.items() if item is not None}


class Recipe(RecipeFields):
    """One run: RecipeFields, and for each kind with a section its Section, or a list of them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return value | {key: _section(kind, value.get(key)) for key, kind in sections().items()}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _section(kind: Kind, written: Any) -> Any:
    """Content of a kind's section; default if it is absent."""
    if kind.many:
        return [
            Section.model_validate(each) for each in (kind.defaults if written is None else written)
        ]
    if written is None and kind.required and kind.defaults:
        written = kind.defaults[0]
    return None if written is None else Section.model_validate(written)


def mask(value: Any, name: str = "") -> Any:
    """The value with secrets replaced by `***`: values of secret keys, and passwords in URLs."""
    if isinstance(value, dict):
        return {key: mask(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item, name) for item in value]
    if not isinstance(value, str):
        return value
    return "***" if _SECRET.search(name) else mask_url(value)
