"""The run in progress: the plugins that a recipe names, and what steps and plugins ask of them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright import events, folder, registry, types
from tunewright.check import Source, check, data_entries, options, stage_recipe
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe, Section
from tunewright.report import Reporter


class Run:
    """The plugins that a recipe names, and nothing else. Hooks get it as `run`."""

    def __init__(
        self, recipe: Recipe, source: Source | None = None, *, trust_remote_code: bool = False
    ) -> None:
        self.source = source or Source("recipe")
        self.recipe = check(recipe, self.source)
        self.folder = Path(recipe.output)
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.data_rank, self.data_world_size = self.rank, self.world_size
        self.trust_remote_code = trust_remote_code
        self._accelerators: list[Any] = []
        for index, section in enumerate(self.recipe.accelerators):
            entry, plugin, checked = options(
                "accelerator", section, self.source, ("accelerators", index)
            )
            self._accelerators.append(plugin(checked, entry.name))
        self._handles: dict[str, registry.PluginCaller] = {}
        for kind in (
            "family",
            "template",
            "quantizer",
            "adapter",
            "dataset",
            "optimizer",
            "engine",
        ):
            if section := getattr(self.recipe, kind):
                self._handles[kind] = self._handle(kind, section, (kind,))
        listening = enumerate(self.recipe.loggers) if self.rank == 0 else ()
        self._loggers = [
            self._handle("logger", section, ("loggers", i)) for i, section in listening
        ]
        self._reporter = Reporter(self, [])

    def _handle(
        self, kind: str, section: Section, at: tuple[str | int, ...]
    ) -> registry.PluginCaller:
        entry, plugin, checked = options(kind, section, self.source, at)
        return registry.PluginCaller(
            entry, plugin(checked, entry.name), self._accelerators, self.source.place(at)
        )

    def use(self, kind: str, section: Section) -> None:
        """Make this plugin the run's one of its kind."""
        self._handles[kind] = self._handle(kind, section, (kind,))

    def named(self, kind: str, name: str, **written: Any) -> registry.PluginCaller:
        """A plugin that is chosen while the run goes, such as the format of a source. Raises
        RecipeError."""
        return self._handle(kind, Section(name=name, **written), (kind,))

    def installed(self, kind: str) -> list[str]:
        """Names of all installed plugins of a kind, from metadata."""
        return sorted({entry.name for entry in registry.entries(kind)})

    def plugin(self, kind: str) -> Any:
        """The plugin of a kind that this run uses."""
        return self._handles[kind].plugin

    def call(self, kind: str, hook: str, request: Any) -> Any:
        """Call a directed hook of the run's plugin of a kind, inside the accelerators."""
        return self._handles[kind].call(hook, run=self, request=request)

    def emit(self, event: events.Event) -> None:
        """Tell the loggers. On other ranks than 0 there are none."""
        self._reporter.emit(event)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """While this lasts, events reach the loggers."""
        self._reporter = Reporter(self, self._loggers)
        try:
            yield
        finally:
            for name, reason in self._reporter.close().items():
                print(f"logger {name} was muted: {reason}")

    def load(
        self, *, head: types.Head = "causal_lm", prior: types.StageResult | None = None, **how: Any
    ) -> types.LoadedModel:
        """load_model and apply_adapter: the recipe's model, or what an earlier stage made of it.

        how: `trainable` and `weights` of the requests; without weights only the tokenizer is
        loaded.
        """
        if "family" not in self._handles:
            self.use("family", Section(name=detect_family(self.recipe)))
        seed, trainable = self.recipe.training.seed, how.get("trainable", True)
        complete = prior is not None and prior.saves == "model"
        model = str(prior.path) if prior and complete else self.recipe.model
        request = types.LoadRequest(
            model, head, trust_remote_code=self.trust_remote_code, seed=seed, **how
        )
        self.emit(events.StepStarted(step="load_model", detail=model))
        if "quantizer" in self._handles and request.weights != "none":
            self.call("quantizer", "prepare_load", request)
        loaded: types.LoadedModel = self.call("family", "load_model", request)
        if "template" not in self._handles:
            if loaded.template is None:
                raise RecipeError(
                    "no template is known for this model",
                    place=self.source.place(("template",)),
                    hint="name one",
                )
            self.use("template", Section(name=loaded.template))
        if request.weights == "none":
            return loaded
        if "quantizer" in self._handles:
            loaded = self._handles["quantizer"].call("finish_load", run=self, loaded=loaded)
        if complete and not trainable:
            return loaded
        adapter = prior.path if prior and prior.saves == "adapter" else None
        self.emit(
            events.StepStarted(step="apply_adapter", detail=self._handles["adapter"].entry.name)
        )
        adapted: types.LoadedModel = self.call(
            "adapter", "apply_adapter", types.AdapterRequest(loaded, head, adapter, trainable, seed)
        )
        return adapted

    def load_policy(self) -> types.LoadedModel:
        """The trained model of this run folder, for engines; where nothing was trained yet, the
        recipe's own."""
        done = (folder.read(self.folder) or {}).get("stages", [])
        if done and self.use_stage(len(done) - 1).plugin.head != "causal_lm":
            raise RecipeError(
                "its last model gives numbers, and writes nothing", place=str(self.folder)
            )
        return self.load(
            prior=folder.result(self.folder, done[-1]) if done else None, trainable=False
        )

    def data_request(
        self, loaded: types.LoadedModel, number: int = 0, limit: int | None = None
    ) -> types.DataRequest:
        """What stage `number` (0 is the first) asks of the dataset."""
        one = stage_recipe(self.recipe, number, self.source)
        rows = self.use_stage(number).plugin.rows
        dataset = type(self.plugin("dataset"))
        evals = {name: data_entries(dataset, entries) for name, entries in one.eval_data.items()}
        return types.DataRequest(
            entries=data_entries(dataset, one.data),
            eval_entries=evals,
            rows=rows,
            loaded=loaded,
            max_length=one.training.max_length,
            seed=one.training.seed,
            root=Path(one.data_root or "."),
            limit=limit,
        )

    def place(self, *path: str | int) -> str:
        """Return where a field stands, for errors: `recipe.yaml:12: stage.packing`."""
        return self.source.place(path)

    def from_command_line(self, *path: str | int) -> bool:
        """Return whether a field was written on the command line, where code may be named."""
        return any(path[: len(key)] == key for key in self.source.overridden)

    def use_stage(self, number: int) -> registry.PluginCaller:
        """Make stage `number` (0 is the first) the run's one."""
        stage = self.recipe.stages[number]
        self.use("stage", Section(name=stage.name, **stage.options))
        return self._handles["stage"]


def detect_family(recipe: Recipe) -> str:
    """The family that the checkpoint's `model_type` maps to in metadata. Raises RecipeError."""
    path, config = Path(recipe.model), None
    if (path / "config.json").is_file():
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    elif recipe.model != "tiny" and not path.exists():
        for point in registry.group("model_config"):
            config = config or point.load()(recipe.model, None)
    known = {point.name: point.value for point in registry.group("model_type")}
    if (found := str((config or {}).get("model_type", ""))) in known:
        return known[found]
    hint = "; ".join(
        filter(
            None,
            [found and registry.hint_for("model_type", found, known), "name one with `family:`"],
        )
    )
    problem = (
        f"model_type {found!r} belongs to no installed family"
        if found
        else "does not tell its family"
    )
    raise RecipeError(f"{recipe.model!r} {problem}", place="model", hint=hint)
