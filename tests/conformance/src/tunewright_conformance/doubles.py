"""Test double of a run: what plugins use of a run, without a recipe file, a run folder or a kernel.

Third parties test their plugins with it:

    run = FakeRun(tmp_path, plugins={"template": MyTemplate(MyTemplate.Options())})
    MyEngine(MyEngine.Options()).open_engine(run, EngineRequest())
    assert run.events == [...]
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tunewright import registry
from tunewright.errors import RecipeError, Stopped
from tunewright.events import Event, Notice
from tunewright.index import Point
from tunewright.recipe import Recipe, Section
from tunewright.registry import Entry, PluginCaller
from tunewright.types import DataRequest, Embedding, LoadedModel, StageResult

E = TypeVar("E", bound=Event)
RECIPE: dict[str, Any] = {
    "model": "tiny",
    "data": [{"path": "data.jsonl"}],
    "stages": [{"name": "sft"}],
    "output": "run",
}


@dataclass
class FakeRun:
    """Implements tunewright.types.RunContext.

    plugins: the run's plugins by kind, a list where a recipe takes many; they are called as the
    kernel calls them. loads: answers `load` and `load_policy`. command_line: paths of fields that
    count as written on the command line. on_event: called with every event. stop_requested:
    whether the run is asked to stop. events: all that were emitted, on any rank. called: how often
    `load`, `load_policy`, and each hook by `call`.
    """

    folder: Path = field(default_factory=Path)
    plugins: dict[str, Any] = field(default_factory=dict)
    recipe: Any = field(default_factory=lambda: Recipe.model_validate(RECIPE))
    rank: int = 0
    world_size: int = 1
    data_rank: int = field(init=False)
    data_world_size: int = field(init=False)
    trust_remote_code: bool = False
    template: Section | None = None
    trained: StageResult | None = None
    embedding: Embedding = field(default_factory=Embedding)
    loads: Callable[..., LoadedModel] | None = None
    command_line: tuple[tuple[str | int, ...], ...] = ()
    on_event: Callable[[Event], None] | None = None
    stop_requested: Callable[[], bool] = lambda: False
    events: list[Event] = field(default_factory=list)
    called: Counter[str] = field(default_factory=Counter)
    _callers: dict[int, PluginCaller] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.data_rank, self.data_world_size = self.rank, self.world_size

    def events_of(self, *types: type[E]) -> list[E]:
        """The events of these types, in order."""
        return [event for event in self.events if isinstance(event, types)]

    @property
    def notices(self) -> list[str]:
        """Messages of all notices."""
        return [event.message for event in self.events_of(Notice)]

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def check_stop(self) -> None:
        if self.stop_requested():
            raise Stopped("stopped as asked")

    def plugin(self, kind: str) -> Any:
        return self.plugins[kind]

    def call(self, kind: str, hook: str, request: Any) -> Any:
        self.called[hook] += 1
        return self._caller(kind, self.plugins[kind]).call(hook, run=self, request=request)

    def callers(self, kind: str) -> list[PluginCaller]:
        found = self.plugins.get(kind, [])
        several = found if isinstance(found, list) else [found]
        return [self._caller(kind, plugin) for plugin in several]

    def _caller(self, kind: str, plugin: Any) -> PluginCaller:
        if id(plugin) not in self._callers:  # one call for each row: to build it takes longer
            self._callers[id(plugin)] = caller(kind, plugin)
        return self._callers[id(plugin)]

    def named(self, kind: str, name: str, **options: Any) -> PluginCaller:
        entry = registry.find(kind, name)
        plugin = registry.load(entry)
        return PluginCaller(entry, plugin(plugin.Options.model_validate(options), entry.name))

    def installed(self, kind: str) -> list[str]:
        return sorted({entry.name for entry in registry.entries(kind)})

    def load(self, **asked: Any) -> LoadedModel:
        return self._loaded("load", **asked)

    def load_policy(self, head: str = "causal_lm") -> LoadedModel:
        return self._loaded("load_policy")

    def _loaded(self, name: str, **asked: Any) -> LoadedModel:
        self.called[name] += 1
        assert self.loads is not None, "the test gives no `loads`"
        return self.loads(**asked)

    def data_request(
        self, loaded: LoadedModel, number: int = 0, limit: int | None = None
    ) -> DataRequest:
        raise RecipeError("a FakeRun has no data", place="data")

    def place(self, *path: str | int) -> str:
        return ": ".join(["recipe.yaml", ".".join(map(str, path))])

    def from_command_line(self, *path: str | int) -> bool:
        return any(path[: len(key)] == key for key in self.command_line)


def caller(kind: str, plugin: Any) -> PluginCaller:
    """The plugin as the kernel calls it, without accelerators."""
    point = Point(kind, plugin.name or "fake", "tests:Fake", "tests", "0", "")
    return PluginCaller(Entry(kind, point), plugin)
