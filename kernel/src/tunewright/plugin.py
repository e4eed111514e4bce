"""Base classes of plugins: one for each kind, with all members that others use.

tests/kernel/contract.txt freezes them. Hooks stand in hookspecs.py.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from tunewright.errors import Problem
from tunewright.types import (
    DataRequest,
    Head,
    LoadedModel,
    Message,
    ModelRole,
    RowKind,
    RunContext,
)

if TYPE_CHECKING:
    from tunewright.check import Resolved


class PluginOptions(BaseModel):
    """Options of a plugin: frozen, every field described, unknown keys refused.

    A field's description is `Field(description=…)` or the docstring below it. `json_schema_extra`
    may hold `{"tier": "advanced"}` (default: basic) and `{"widget": "path" | "secret"}`, for forms,
    and `{"may_change": True}` where a resumed run may have another value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Plugin:
    """A plugin is a class with Options and hook implementations.

    Its entry point gives it a name:
    `[project.entry-points."tunewright.adapter"] lora = "tunewright_lora:Lora"`.
    """

    class Options(PluginOptions):
        pass

    #: conformance tests that this plugin does not pass: test name → reason, a full sentence
    deviations: ClassVar[dict[str, str]] = {}
    #: files and folders below the run folder that it writes; --overwrite removes them
    artifacts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Any, name: str = "") -> None:
        self.options = options
        self.name = name
        #: its section in the recipe, such as ("adapter",) or ("stages", 1); set by the kernel
        self.at: tuple[str | int, ...] = ()

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Problems of the combination in which the plugin stands, found before anything loads.

        A Problem's path is absolute; `(*self.at, "field")` is a field of the plugin's own section.
        Imports neither torch nor transformers. Default: none.
        """
        return ()

    def close(self) -> None:
        """Release what the plugin holds, when the run ends."""


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

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Bytes that a quantized linear weight of this shape takes, scales included.

        dtype: what the checkpoint stores, such as bfloat16.
        """
        raise NotImplementedError


class Adapter(Plugin):
    """Kind adapter: chooses what is trained."""

    #: whether it trains weights of the model itself, which must then not be quantized
    trains_base_weights: ClassVar[bool] = False

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Add the adapter to the weights and return the plain model. Raises RunError."""
        raise NotImplementedError

    def load_external(self, loaded: LoadedModel, folder: Path) -> LoadedModel:
        """Load an adapter of this kind that another tool has saved. Raises RunError."""
        raise NotImplementedError


class Dataset(Plugin):
    """Kind dataset: sources to tokenised rows."""

    class Entry(PluginOptions):
        """One source of the recipe's `data`."""

    def preview(self, run: RunContext, request: DataRequest, count: int) -> Any:
        """Return the first rows as the model will see them, and the lengths of all."""
        raise NotImplementedError

    def stats(self, run: RunContext, request: DataRequest) -> Any:
        """Return counts over all rows."""
        raise NotImplementedError


class Format(Plugin):
    """Kind format: records to rows, with what the dataset must know before it reads."""

    rows: ClassVar[tuple[RowKind, ...]]  #: the kinds of rows it can give

    @staticmethod
    def matches(record: Any) -> bool:
        """Return whether a source's first record looks like this format. False: only by name."""
        return False


class Optimizer(Plugin):
    """Kind optimizer: builds a torch optimizer."""

    #: whether it updates parameters inside the backward pass (LOMO): the loop then neither clips
    #: nor accumulates gradients
    steps_in_backward: ClassVar[bool] = False

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Bytes of optimizer state of one trained parameter.

        dtype: what the parameter is trained in, such as float32.
        """
        raise NotImplementedError


class Scheduler(Plugin):
    """Kind scheduler: builds a learning-rate schedule."""

    #: whether the schedule depends on the number of steps: a resumed run may not have more then
    needs_total_steps: ClassVar[bool] = True


class Accelerator(Plugin):
    """Kind accelerator: wraps hooks with `@hookimpl(wrapper=True)`."""


class Stage(Plugin):
    """Kind stage: trains. Declares what it needs from the others."""

    artifacts = ("checkpoints", "model")

    rows: ClassVar[RowKind]  #: the kind of rows it trains on
    head: ClassVar[Head] = "causal_lm"  #: the head of the policy
    models: ClassVar[tuple[ModelRole, ...]] = ("policy",)  #: the models it holds


class Reward(Plugin):
    """Kind reward: scores completions."""


class Logger(Plugin):
    """Kind logger: receives events."""


class Engine(Plugin):
    """Kind engine: generates replies."""


def described(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions of a model's fields: `Field(description=…)`, else the docstring below the field.

    Only help and schemas ask: pydantic's `use_attribute_docstrings` reads sources at each import,
    which takes 60 ms. The model is not changed.
    """
    found = {}
    for owner in reversed([base for base in model.__mro__ if hasattr(base, "model_fields")]):
        for name, text in _docstrings(owner):
            if name in model.model_fields:
                found[name] = text
    own = {name: field.description for name, field in model.model_fields.items()}
    return found | {name: text for name, text in own.items() if text}


def _docstrings(owner: type[Any]) -> Iterator[tuple[str, str]]:
    if owner is BaseModel:
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    except (OSError, TypeError):  # made without a file
        return
    for field, text in pairwise(tree.body if isinstance(tree, ast.ClassDef) else []):
        match field, text:
            case ast.AnnAssign(target=target), ast.Expr(value=ast.Constant(value=str(written))):
                yield ast.unparse(target), inspect.cleandoc(written)
