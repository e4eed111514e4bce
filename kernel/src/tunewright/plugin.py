"""Base classes of plugins: one per kind, with all members that others use.

tests/kernel/contract.txt freezes them. Hooks are in hookspecs.py.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tunewright.errors import Problem
from tunewright.objections import (
    accelerator_problems,
    optimizer_problems,
    problems_of_switching,
    quantizer_problems,
)
from tunewright.plugin_base import Plugin, PluginOptions
from tunewright.plugin_data import Dataset, Format
from tunewright.types import (
    Embedding,
    ExportRequest,
    Head,
    LoadedModel,
    Message,
    ModelRole,
    RowKind,
    RunContext,
)

if TYPE_CHECKING:
    from tunewright.check import Resolved

__all__ = [
    "Accelerator",
    "Adapter",
    "Dataset",
    "Engine",
    "Evaluator",
    "Exporter",
    "Family",
    "Format",
    "Logger",
    "Optimizer",
    "Plugin",
    "PluginOptions",
    "Quantizer",
    "Reward",
    "Scheduler",
    "Stage",
    "Template",
]


class Family(Plugin):
    """Kind family: loads models and tokenizers. Most derive from tunewright_hf.models.family."""


class Template(Plugin):
    """Kind template: renders conversations."""

    info: Any  #: tunewright_hf.templates.info.TemplateInfo: stop tokens, control tokens, …

    def chat_template(self) -> str | None:
        """The template as plain Jinja for the saved tokenizer; None leaves the tokenizer's own."""
        raise NotImplementedError

    def parse_reply(self, text: str, tools: list[dict[str, Any]] | None = None) -> Message:
        """Parse generated text into a message: reasoning, content and tool calls."""
        raise NotImplementedError


class Quantizer(Plugin):
    """Kind quantizer: edits the load request, then the loaded model."""

    #: whether the weights can still be trained, as in quantization-aware training
    trainable: ClassVar[bool] = False
    #: names of the accelerators that can shard the weights that it has quantized
    sharded_by: ClassVar[tuple[str, ...]] = ()

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse what trains quantized weights, and accelerators that cannot shard them. Subclasses
        add to it."""
        adapter = recipe.plugin("adapter")
        trains = adapter and issubclass(adapter, Adapter) and adapter.trains_base_weights
        yield from quantizer_problems(self, recipe, bool(trains))

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Bytes that a quantized linear weight of this shape takes, scales included.

        dtype: what the checkpoint stores, such as bfloat16.
        """
        raise NotImplementedError


class Adapter(Plugin):
    """Kind adapter: chooses what is trained."""

    #: whether it trains the model's own weights, which must then not be quantized
    trains_base_weights: ClassVar[bool] = False
    #: whether it changes which parameters are trained while a training runs (LISA)
    switches_parameters: ClassVar[bool] = False
    #: whether it trains the embeddings of LoadedModel.new_tokens, and saves them
    trains_new_tokens: ClassVar[bool] = False

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse what an adapter of this sort cannot do. Subclasses add to it."""
        if self.switches_parameters:
            yield from problems_of_switching(self.name, recipe)
            optimizer = recipe.choices.get("optimizer")
            if optimizer and getattr(optimizer.plugin, "switches_parameters", False):
                yield Problem(
                    self.at,
                    f"{self.name} and {optimizer.entry.name} both switch which parameters are "
                    "trained",
                    "set another optimizer such as adamw, or adapter: full",
                )

    def works_on_meta(self) -> bool:
        """Return whether apply_adapter may get a model without weights, on the meta device.

        It is then applied twice: to that model on all ranks, and on rank 0 to the same model with
        weights, from which the first gets all values by name. False: an adapter that reads weights.
        """
        return False

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Add the adapter to the weights and return the plain model. Raises RunError."""
        raise NotImplementedError

    def load_external(self, loaded: LoadedModel, folder: Path) -> LoadedModel:
        """Load an adapter of this kind that another tool has saved. Raises RunError."""
        raise NotImplementedError


class Optimizer(Plugin):
    """Kind optimizer: builds a torch optimizer."""

    #: whether it updates parameters inside the backward pass (LOMO): the loop then neither clips
    #: nor accumulates gradients
    steps_in_backward: ClassVar[bool] = False
    #: whether the update of a weight depends on nothing but its own gradient and state: it then
    #: works on shards of parameters (FSDP, ZeRO) and with stochastic rounding
    elementwise: ClassVar[bool] = False
    #: whether it changes which parameters are trained while a training runs (BAdam)
    switches_parameters: ClassVar[bool] = False
    #: whether evaluations and results have an average of the weights (schedule-free)
    averages_weights: ClassVar[bool] = False

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse what an optimizer of this sort cannot do. Subclasses add to it."""
        yield from optimizer_problems(self, recipe)

    @staticmethod
    def dtype_bytes(dtype: str) -> int:
        """Bytes of a value of a floating-point dtype, such as float32."""
        return 2 if dtype in ("bfloat16", "float16") else 4

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Bytes of optimizer state of one trained parameter.

        dtype: what the parameter is trained in, such as float32.
        """
        raise NotImplementedError


class Scheduler(Plugin):
    """Kind scheduler: builds a learning-rate schedule."""

    #: whether the schedule depends on the number of steps: a resumed run may then not have more
    needs_total_steps: ClassVar[bool] = True


class Accelerator(Plugin):
    """Kind accelerator: wraps hooks with `@hookimpl(wrapper=True)`."""

    #: whether the optimizer gets shards of the parameters in place of whole ones
    shards: ClassVar[bool] = False
    #: whether the parameters that are trained must stay the same during a training
    fixes_parameters: ClassVar[bool] = False
    #: whether it does nothing with one process
    needs_processes: ClassVar[bool] = False
    #: whether its hooks run on a CPU, in one process, on tensors without values, to plan memory
    planned: ClassVar[bool] = True

    @property
    def gathers(self) -> bool:
        """Whether each rank can hold the whole model for a while, as generation needs."""
        return True

    def divides(self) -> dict[str, Literal["sharded", "gathered", "offloaded"]]:
        """Return what it shards, maybe to CPU memory: of weights, gradients and optimizer.

        gathered: weights are sharded, and all of them are whole besides while a step computes;
        gradients are sharded for the update alone. The key `copy` stands for a second copy of the
        trained weights, if training is in fp32.
        """
        return {}

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse what an accelerator of this sort cannot do. Subclasses add to it."""
        yield from accelerator_problems(self, recipe)


class Stage(Plugin):
    """Kind stage: trains. Declares what it needs from the others."""

    artifacts: ClassVar[tuple[str, ...]] = ("checkpoints", "model")

    rows: ClassVar[RowKind]  #: the kind of rows it trains on
    head: ClassVar[Head] = "causal_lm"  #: the head of the policy
    models: ClassVar[tuple[ModelRole, ...]] = ("policy",)  #: the models it holds
    #: metrics of its evaluations, with which metric_for_best_model is checked; empty: not known
    eval_metrics: ClassVar[tuple[str, ...]] = ()

    @property
    def generates(self) -> bool:
        """Whether the policy generates text during training or its evaluations."""
        return self.rows == "prompts"

    @property
    def labels(self) -> tuple[str, ...]:
        """With the heads classes and steps: names of their outputs."""
        return ()

    @property
    def embedding(self) -> Embedding:
        """Texts of queries and documents, and their vectors, with the model that it trains."""
        return Embedding()

    def tools(self, run: RunContext) -> list[dict[str, Any]] | None:
        """Tools that its environment offers in every prompt, as OpenAI's JSON schemas.

        None: it has no environment. Raises RecipeError if the environment cannot be loaded.
        """
        return None


class Reward(Plugin):
    """Kind reward: scores completions."""

    def columns(self) -> tuple[str, ...]:
        """Names of the columns that rows must have."""
        return ()


class Exporter(Plugin):
    """Kind exporter: writes a trained model in another format."""

    #: heads of the models that it writes
    heads: ClassVar[tuple[Head, ...]] = ("causal_lm",)

    def tolerance(self) -> float:
        """Largest difference of the export's logits from the run's, as a share of the largest."""
        return 1e-4

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        """Load what was written as other programs do, to compare it with the run.

        Returns a torch.nn.Module whose forward takes input_ids; None if no library here reads the
        format.
        """
        return None


class Evaluator(Plugin):
    """Kind evaluator: measures a trained model."""

    #: runs that are compared in one evaluation: EvaluationRequest.other is the second
    runs: ClassVar[Literal[1, 2]] = 1

    def identity(self, run: RunContext) -> dict[str, Any]:
        """Return JSON values, besides the options, on which results depend, such as a digest of the
        data: results with other ones are refused."""
        return {}


class Logger(Plugin):
    """Kind logger: receives events."""


class Engine(Plugin):
    """Kind engine: opens a tunewright.inference.InferenceEngine."""

    def update_objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse recipes whose model it cannot get while it is trained
        (InferenceEngine.update)."""
        yield Problem(self.at, f"the engine {self.name} takes no weights while it answers")
