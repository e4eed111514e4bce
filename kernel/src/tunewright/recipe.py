"""The recipe: sections that name plugins, and the fields of `training` and `launch`.

The kernel knows no field of a plugin's section: `check.py` holds it against that plugin's own
Options.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tunewright import registry
from tunewright.errors import RecipeError

_STRICT = ConfigDict(frozen=True, extra="forbid")
_SECRET = re.compile(r"token$|secret|password|api_?key$|credential", re.IGNORECASE)


class Section(BaseModel):
    """The plugin that a section names, with its options as they were written, or as its Options
    made them."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class Training(BaseModel):
    """How every stage trains."""

    model_config = _STRICT

    learning_rate: float = Field(5e-5, gt=0)
    """peak learning rate of the optimizer"""
    epochs: float = Field(1.0, gt=0)
    """passes over the data"""
    max_steps: int | None = Field(None, gt=0)
    """optimizer steps, in place of epochs"""
    per_device_train_batch_size: int = Field(8, gt=0)
    """rows of one forward pass (with packing: packed rows; with batching: token_budget their mean
    number)"""
    per_device_eval_batch_size: int = Field(8, gt=0)
    """rows of one forward pass in evaluation"""
    gradient_accumulation_steps: int = Field(1, gt=0)
    """forward passes to one optimizer step"""
    batching: Literal["random", "length_grouped", "token_budget"] = "token_budget"
    """how rows are put together where they are not packed: as they come, rows of like length, or as
    many rows of like length as fit into tokens_per_batch, which wastes the least on padding"""
    tokens_per_batch: int | None = Field(None, gt=0)
    """tokens of one forward pass, padding included, with batching: token_budget; without it, so
    many that an epoch has about as many steps as with per_device_train_batch_size rows in each pass
    """
    max_length: int = Field(2048, gt=1)
    """tokens of one row; what is longer is handled as the dataset's `truncate` says"""
    lr_scheduler_type: str = "cosine"
    """Scheduler plugin, with its default options: the learning rate after warm-up."""
    warmup_steps: float = Field(0.0, ge=0)
    """optimizer steps of warm-up, or their share of all when below 1"""
    weight_decay: float = Field(0.0, ge=0)
    """decay of weight matrices; biases and norms have none"""
    max_grad_norm: float = Field(1.0, ge=0)
    """gradients are clipped to this norm; 0 clips nothing"""
    max_bad_steps: int = Field(3, ge=1)
    """Steps in a row whose loss or gradients are not finite, after which the run stops. The updates
    of such steps are left out."""
    seed: int = Field(42, ge=0, lt=2**32)
    """of everything that is random"""
    precision: Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"] = "auto"
    """Precision of the forward pass. auto: bf16 on a GPU that has it or a CPU with matrix units for
    it (AMX), else fp32. Trained weights and optimizer states are kept in fp32; with pure_bf16 both
    and the gradients are in bf16, half the memory (8 bytes a trained parameter with AdamW)."""
    stochastic_rounding: bool = False
    """With pure_bf16: round weights and optimizer states up or down at random (arXiv:2010.06192),
    so that small updates are not lost."""
    activation_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, about a third more time"""
    logging_steps: int = Field(10, gt=0)
    """optimizer steps between two reports"""
    save_steps: int | None = Field(None, gt=0)
    """optimizer steps between two checkpoints; without it one is written when the run is
    interrupted"""
    save_total_limit: int = Field(3, gt=0)
    """checkpoints that are kept; older ones are removed, the best one never with
    load_best_model_at_end"""
    eval_steps: int | None = Field(None, gt=0)
    """optimizer steps between two evaluations; without it one is made after every epoch"""
    load_best_model_at_end: bool = False
    """the result has the weights of the best evaluation, not the last ones; a checkpoint is written
    at each evaluation that is better than all before"""
    metric_for_best_model: str | None = None
    """what is compared: NAME_METRIC of the evaluation set NAME, such as validation_loss, or METRIC
    alone where there is one set; without it the loss of the first set"""
    greater_is_better: bool | None = None
    """whether that metric should rise; without it, all rise but those whose name ends in `loss`"""
    early_stopping_patience: int | None = Field(None, gt=0)
    """training stops after so many evaluations in a row without improvement"""
    early_stopping_threshold: float = Field(0.0, ge=0)
    """what is no improvement for early stopping: a change of the metric by no more than this"""

    @field_validator("lr_scheduler_type")
    @classmethod
    def _is_a_scheduler(cls, name: str) -> str:
        try:
            registry.find("scheduler", name)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return name

    @model_validator(mode="after")
    def _go_together(self) -> "Training":
        if self.tokens_per_batch is not None and self.batching != "token_budget":
            raise ValueError("tokens_per_batch goes with batching: token_budget")
        if self.stochastic_rounding and self.precision != "pure_bf16":
            raise ValueError("stochastic_rounding goes with precision: pure_bf16")
        if self.early_stopping_threshold and not self.early_stopping_patience:
            raise ValueError("early_stopping_threshold goes with early_stopping_patience")
        chosen = self.metric_for_best_model is not None or self.greater_is_better is not None
        if chosen and not (self.load_best_model_at_end or self.early_stopping_patience):
            raise ValueError(
                "what is best is asked by load_best_model_at_end or "
                "early_stopping_patience; set one"
            )
        return self


class Launch(BaseModel):
    """On how many processes the run goes. The torchrun environment, where it is set, wins."""

    model_config = _STRICT

    processes: int = Field(1, gt=0)
    """processes on each node: one for each GPU"""
    nodes: int = Field(1, gt=0)
    """machines"""
    node_rank: int = Field(0, ge=0)
    """which of them this is"""
    main_address: str = "127.0.0.1"
    """host name of node 0"""
    main_port: int = Field(29500, gt=0, lt=65536)
    """a free port on node 0"""


class StageSection(Section):
    """One entry of `stages`. What it does not say, the recipe's own sections say."""

    data: list[dict[str, Any]] | None = None
    eval_data: dict[str, list[dict[str, Any]]] | None = None
    training: dict[str, Any] = Field(default_factory=dict)  # laid over the recipe's own


def _default(kind: str) -> Any:
    return lambda: Section(name=registry.shipped_table()["defaults"][kind])


class Recipe(BaseModel):
    """One run."""

    model_config = _STRICT

    model: str = Field(min_length=1)
    """hub id, local folder, or `tiny`: the family's tiny twin"""
    family: Section | None = None
    """found from the checkpoint's config.json where it is not named"""
    template: Section | None = None
    """the family's own for this checkpoint where it is not named"""
    quantizer: Section | None = None
    """none: weights are loaded as they are"""
    adapter: Section = Field(default_factory=_default("adapter"))
    """which parameters are trained, and how"""
    dataset: Section = Field(default_factory=_default("dataset"))
    """how data is read, rendered and tokenised"""
    data: list[dict[str, Any]] = Field(default_factory=list)
    """what to train on: sources, as the dataset plugin describes them"""
    eval_data: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    """what to evaluate on: name → sources"""
    stages: list[StageSection] = Field(min_length=1)
    """what is done, in order; `stage` is a list of one"""
    optimizer: Section = Field(default_factory=_default("optimizer"))
    """how parameters move"""
    accelerators: list[Section] = Field(default_factory=list)
    """what makes steps faster or better; the first is the outermost"""
    training: Training = Training()
    """how every stage trains"""
    launch: Launch = Launch()
    """on how many processes"""
    loggers: list[Section] = Field(
        default_factory=lambda: [
            Section(name=n) for n in registry.shipped_table()["defaults"]["loggers"]
        ]
    )
    """who is told"""
    engine: Section = Field(default_factory=_default("engine"))
    """what answers in chat"""
    output: str = Field(min_length=1)
    """the run folder, from the current folder"""
    data_root: str | None = None
    """where relative paths of data start; the recipe's own folder where it is not named"""

    @model_validator(mode="before")
    @classmethod
    def _one_stage(cls, value: Any) -> Any:
        if isinstance(value, dict) and "stage" in value:
            if "stages" in value:
                raise ValueError("has both stage and stages; one is enough")
            value = {"stages": [value["stage"]], **{k: v for k, v in value.items() if k != "stage"}}
        return value

    def as_dict(self) -> dict[str, Any]:
        """The resolved recipe as it is written to the run folder: JSON values, secrets masked."""
        masked: dict[str, Any] = mask(self.model_dump(mode="json", exclude_none=True))
        return masked


def mask(value: Any, name: str = "") -> Any:
    """The value with every secret in it replaced by `***`, found by the name of its key."""
    if isinstance(value, dict):
        return {key: mask(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item, name) for item in value]
    return "***" if isinstance(value, str) and _SECRET.search(name) else value
