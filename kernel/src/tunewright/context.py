"""The run in progress: the plugins that a recipe names, and what steps and plugins ask of them."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright import events, folder, registry, types
from tunewright.check import Choice, Resolved, choose
from tunewright.detection import detect_family
from tunewright.errors import RecipeError, RunError, Stopped, TunewrightError
from tunewright.kinds import sections
from tunewright.recipe import Recipe, Section
from tunewright.registry import PluginCaller
from tunewright.report import Reporter
from tunewright.terminal import printable


class Run:
    """The plugins that a recipe names, and nothing else. Hooks get it as `run`.

    on_event: called with every event, at once and in the thread that emits it.
    """

    def __init__(
        self,
        resolved: Resolved,
        *,
        trust_remote_code: bool = False,
        on_event: Callable[[events.Event], None] | None = None,
    ) -> None:
        self.resolved, self.recipe, self.source = resolved, resolved.recipe, resolved.source
        self.folder = Path(resolved.recipe.output).expanduser()
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.data_rank, self.data_world_size = self.rank, self.world_size
        self.trust_remote_code = trust_remote_code
        self.stop_requested: Callable[[], bool] = lambda: False  # while training: a Stopper
        self._on_event = on_event
        #: the template in use with all its options; None until the first load
        self.template: Section | None = None
        self.scorer: types.StageResult | None = None  # last result with a score head
        self._made: list[Any] = []  # every plugin, to be closed
        self._accelerators = [choice.make() for choice in resolved.lists.get("accelerator", [])]
        self._callers = {kind: self._caller(choice) for kind, choice in resolved.choices.items()}
        self._stages = [self._caller(stage.choice) for stage in resolved.stages]
        self._several = {
            kind: [self._caller(choice) for choice in choices]
            for kind, choices in resolved.lists.items()
            if kind not in ("accelerator", "logger")
        }
        listening = resolved.lists["logger"] if self.rank == 0 else []
        self._loggers = [self._caller(choice) for choice in listening]
        self._reporter: Reporter | None = None
        self._number = 0  # of the stage in progress

    def _caller(self, choice: Choice) -> PluginCaller:
        plugin, place = choice.make(), self.source.place(choice.at)
        self._made.append(plugin)
        return PluginCaller(choice.entry, plugin, self._accelerators, place)

    # ---- what plugins may ask: types.RunContext --------------------------------------------------

    def named(self, kind: str, name: str, **options: Any) -> PluginCaller:
        """Build a plugin by name while the run goes, such as a format. Raises RecipeError."""
        return self._caller(choose(kind, Section(name=name, **options), self.source, (kind,)))

    def installed(self, kind: str) -> list[str]:
        """Names of the installed plugins of a kind, from metadata, sorted."""
        return sorted({entry.name for entry in registry.entries(kind)})

    def plugin(self, kind: str) -> Any:
        """Return the run's plugin of a kind. Raises RunError if it has none."""
        return self._of(kind).plugin

    def call(self, kind: str, hook: str, request: Any) -> Any:
        """Call a hook of the run's plugin of a kind, inside the accelerators."""
        with self._placing():
            return self._of(kind).call(hook, run=self, request=request)

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Give errors that name a field of the recipe its file and line."""
        try:
            yield
        except TunewrightError as error:
            fields = {"stage", *Recipe.model_fields, *sections()}
            error.place = self.source.located(error.place, self._number, fields)
            raise

    def callers(self, kind: str) -> list[PluginCaller]:
        """Return the run's plugins of a kind of which a recipe takes many, in its order."""
        return self._several.get(kind, [])

    def _of(self, kind: str) -> PluginCaller:
        if kind not in self._callers:
            raise RunError(f"this run has no {kind}")
        return self._callers[kind]

    def check_stop(self) -> None:
        """Raise Stopped if the run was asked to stop (Ctrl-C, SIGTERM)."""
        if self.stop_requested():
            raise Stopped("stopped as asked")

    def emit(self, event: events.Event) -> None:
        """Send an event to the loggers. On ranks other than 0 it is dropped."""
        if self.rank:
            return
        if self._on_event is not None:
            self._on_event(event)
        if self._reporter is not None:
            self._reporter.emit(event)

    def load(
        self,
        *,
        head: types.Head = "causal_lm",
        prior: types.StageResult | None = None,
        trainable: bool = True,
        weights: types.Weights = "load",
    ) -> types.LoadedModel:
        """Run load_model and apply_adapter: the recipe's model, or an earlier stage's result."""
        if "family" not in self._callers:
            self.use("family", Section(name=detect_family(self.recipe.model)))
        complete = prior is not None and prior.saves == "model"
        model = str(prior.path) if prior and complete else self.recipe.model
        seed = self.recipe.training.seed
        request = types.LoadRequest(
            model,
            head,
            trust_remote_code=self.trust_remote_code,
            seed=seed,
            trainable=trainable,
            weights=weights,
            tiny_of=self.resolved.smoke_of if model == "tiny" else None,
            labels=self._labels(head),
        )
        self.emit(events.StepStarted(step="load_model", detail=model))
        if "quantizer" in self._callers and weights != "none":
            self.call("quantizer", "prepare_load", request)
        loaded: types.LoadedModel = self.call("family", "load_model", request)
        self._use_template_of(loaded)
        if weights == "none":
            return loaded
        if "quantizer" in self._callers:
            with self._placing():
                loaded = self._callers["quantizer"].call("finish_load", run=self, loaded=loaded)
        if complete and not trainable:
            return loaded
        adapter = prior.path if prior and prior.saves == "adapter" else None
        self.emit(
            events.StepStarted(step="apply_adapter", detail=self._callers["adapter"].entry.name)
        )
        asked = types.AdapterRequest(loaded, head, adapter, trainable, seed)
        adapted: types.LoadedModel = self.call("adapter", "apply_adapter", asked)
        return adapted

    def _labels(self, head: types.Head) -> tuple[str, ...]:
        """Labels of the current stage, or of the one that has trained a model with this head."""
        current = [self._callers["stage"]] if "stage" in self._callers else []
        stages = [each.plugin for each in (*current, *reversed(self._stages))]
        found: tuple[str, ...]
        found = next((each.labels for each in stages if each.head == head), ())
        return found

    def prepare_adapter(self, loaded: types.LoadedModel, data: types.Data) -> types.LoadedModel:
        """Initialise the policy's adapter from the stage's data, if its plugin does so."""
        adapter = self._callers["adapter"]
        if not hasattr(adapter.plugin, "prepare_adapter"):
            return loaded
        with self._placing():
            prepared: types.LoadedModel = adapter.call(
                "prepare_adapter", run=self, loaded=loaded, data=data
            )
        return prepared

    def _use_template_of(self, loaded: types.LoadedModel) -> None:
        if self.template is not None:
            return
        written = self.recipe.template
        if written is None and loaded.template is None:
            place = self.source.place(("template",))
            family = self._callers["family"].entry.name
            problem = f"no template is known for {self.recipe.model}, of family {family}"
            hint = "name one, such as chatml; `tunewright plugins list` has all"
            raise RecipeError(problem, place=place, hint=hint)
        name = written.name if written else loaded.template
        options = loaded.template_options if name == loaded.template else {}
        own = written.options.items() if written else ()
        own = {key: value for key, value in own if value is not None}  # None: not written
        self.use("template", Section(name=name, **options | own))

    @property
    def policy_head(self) -> types.Head:
        """Head of the model that the run folder's stages have trained."""
        done = folder.stages(self.folder)
        return self._stages[len(done) - 1].plugin.head if done else "causal_lm"

    @property
    def embedding(self) -> types.Embedding:
        """Computation of vectors of texts with the model that load_policy loads."""
        done = folder.stages(self.folder)
        found: types.Embedding = self.stage(len(done) - 1).embedding if done else types.Embedding()
        return found

    @property
    def trained(self) -> types.StageResult | None:
        """Result that load_policy loads: of the run folder's last stage. None: the recipe's
        model."""
        done = folder.stages(self.folder)
        return folder.result(self.folder, done[-1]) if done else None

    def load_policy(self, head: types.Head = "causal_lm") -> types.LoadedModel:
        """Load the model that the run folder's stages have trained, for inference."""
        if self.policy_head != head:
            kinds = {"classes": "classifier", "steps": "reward model of steps"}
            kind = kinds.get(self.policy_head, "reward model")
            problem = f"is a {kind}, which does not generate text"
            if head != "causal_lm":
                problem = "is no reward model: it has no scores"
            raise RecipeError(problem, place=str(self.folder))
        return self.load(head=head, prior=self.trained, trainable=False)

    def data_request(
        self, loaded: types.LoadedModel, number: int = 0, limit: int | None = None
    ) -> types.DataRequest:
        """Return the dataset request of stage `number` (0 is the first). limit: rows per source."""
        stage = self.resolved.stages[number]
        return types.DataRequest(
            entries=stage.data,
            eval_entries=stage.eval_data,
            rows=stage.choice.plugin.rows,
            loaded=loaded,
            max_length=stage.training.max_length,
            seed=stage.training.seed,
            root=Path(self.recipe.data_root or "."),
            limit=limit,
            embedding=self.stage(number).embedding,
            # without a tokenizer nothing is rendered: no environment has to be opened
            tools=self.stage(number).tools(self) if loaded.tokenizer else None,
        )

    def place(self, *path: str | int) -> str:
        """Return the place of a field for errors: `recipe.yaml:12: stage.packing`."""
        return self.source.place(path)

    def from_command_line(self, *path: str | int) -> bool:
        """Return whether a field was written on the command line, where code may be named."""
        return self.source.from_command_line(*path)

    # ---- what the kernel and commands do with a run ----------------------------------------------

    def use(self, kind: str, section: Section) -> None:
        """Make this plugin the run's plugin of its kind."""
        self._callers[kind] = self._caller(choose(kind, section, self.source, (kind,)))
        if kind == "template":
            self.template = section

    def stage(self, number: int) -> Any:
        """The plugin of stage `number` (0 is the first)."""
        return self._stages[number].plugin

    def begin_stage(self, number: int) -> None:
        """Make stage `number` current, with the plugins that its training names."""
        self._callers["stage"], self._number = self._stages[number], number
        for kind, choice in self.resolved.choices.items():  # undo changes of the previous stage
            if any(kind in stage.choices for stage in self.resolved.stages):
                self._callers[kind] = self._caller(
                    self.resolved.stages[number].choices.get(kind, choice)
                )

    def artifacts(self) -> list[str]:
        """Names below the run folder that this recipe's plugins write."""
        found = {name for choice in self.resolved.all_choices() for name in choice.plugin.artifacts}
        return sorted(found)

    @contextmanager
    def reporting(self, watching: Sequence[Callable[[events.Event], None]]) -> Iterator[None]:
        """Send events to the loggers inside the context, and to `watching` first."""
        self._reporter = Reporter(self, self._loggers, () if self.rank else watching)
        try:
            yield
        finally:
            for name, reason in self._reporter.close().items():
                print(printable(f"logger {name} was muted: {reason}"))
            self._reporter = None
            for plugin in (*self._made, *self._accelerators):
                with contextlib.suppress(Exception):  # the run is over, and its result is written
                    plugin.close()
