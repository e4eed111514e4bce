"""Interface of a run for its plugins."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tunewright.events import Event
    from tunewright.recipe import Recipe, Section
    from tunewright.registry import PluginCaller
    from tunewright.types import DataRequest, Embedding, Head, LoadedModel, StageResult, Weights


class RunContext(Protocol):
    """Interface of a run for its plugins. Hooks get it as `run`.

    `tunewright.context.Run` is the run of a recipe; `tunewright_conformance.doubles.FakeRun`
    replaces it in tests.
    """

    recipe: "Recipe"
    folder: Path  # the run folder
    rank: int  # of this process; 0 is the first
    world_size: int  # processes of the run
    #: index of this rank's share of each batch, and number of shares. They differ from rank and
    #: world size if several ranks compute one model together
    data_rank: int
    data_world_size: int
    trust_remote_code: bool  # granted on the command line only
    #: the template in use, with the options that the checkpoint adds; None until the first load
    template: "Section | None"

    @property
    def trained(self) -> "StageResult | None":
        """Result that load_policy loads: the last stage's, or an adapter that was opened without a
        run. None: the recipe's model. Raises RecipeError where only load_policy can load it."""

    @property
    def embedding(self) -> "Embedding":
        """Computation of vectors of texts with the model that load_policy loads."""

    def emit(self, event: "Event") -> None:
        """Send an event to the loggers. On ranks other than 0 it is dropped."""

    def check_stop(self) -> None:
        """Raise Stopped if the run was asked to stop. Long hooks call it between units of work: a
        chunk of rows, a shard of weights, a batch."""

    def plugin(self, kind: str) -> Any:
        """Return the run's plugin of a kind, such as `run.plugin("template")`. Raises RunError."""

    def call(self, kind: str, hook: str, request: Any) -> Any:
        """Call a hook of the run's plugin of a kind, inside the accelerators."""

    def callers(self, kind: str) -> "list[PluginCaller]":
        """Return the run's plugins of a kind of which a recipe takes many, in the recipe's order:
        `for caller in run.callers("mixer"): caller.call("weigh", run=run, request=request)`.

        Empty where there are none, and for accelerators and loggers, which the kernel calls.
        """

    def named(self, kind: str, name: str, **options: Any) -> "PluginCaller":
        """Build a plugin by name while the run goes, such as a format. Raises RecipeError."""

    def installed(self, kind: str) -> list[str]:
        """Names of the installed plugins of a kind, from metadata, sorted."""

    def load(
        self,
        *,
        head: "Head" = "causal_lm",
        prior: "StageResult | None" = None,
        trainable: bool = True,
        weights: "Weights" = "load",
    ) -> "LoadedModel":
        """Run load_model and apply_adapter: the recipe's model, or an earlier stage's result.

        weights="none" loads the tokenizer alone.
        """

    def load_policy(self, head: "Head" = "causal_lm") -> "LoadedModel":
        """Load the model that the run folder's stages have trained, for inference.

        head: the one that it must have. Raises RecipeError if it has another.
        """

    def data_request(
        self, loaded: "LoadedModel", number: int = 0, limit: int | None = None
    ) -> "DataRequest":
        """Return the dataset request of stage `number` (0 is the first). limit: rows per source."""

    def place(self, *path: str | int) -> str:
        """Return the place of a field for errors: `recipe.yaml:12: stage.packing`."""

    def from_command_line(self, *path: str | int) -> bool:
        """Return whether a field was given on the command line, where code may be named."""
