"""A run for tests: what plugins may ask of a run, without a recipe file, a run folder or a kernel.

Third parties test their plugins with it:

    run = FakeRun(tmp_path, plugins={"template": MyTemplate(MyTemplate.Options())})
    MyEngine(MyEngine.Options()).generate(run, request)
    assert run.events == [...]
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.errors import RecipeError
from tunewright.events import Event, Notice
from tunewright.index import Point
from tunewright.recipe import Recipe
from tunewright.registry import Entry, PluginCaller, entries, find, load
from tunewright.types import DataRequest, LoadedModel

RECIPE: dict[str, Any] = {
    "model": "tiny",
    "data": [{"path": "data.jsonl"}],
    "stages": [{"name": "sft"}],
    "output": "run",
}


@dataclass
class FakeRun:
    """Implements tunewright.types.RunContext.

    plugins: the run's plugins by kind; `call` calls them as the kernel does. loads: answers `load`.
    command_line: paths of fields that count as written on the command line.
    """

    folder: Path = field(default_factory=Path)
    plugins: dict[str, Any] = field(default_factory=dict)
    recipe: Any = field(default_factory=lambda: Recipe.model_validate(RECIPE))
    rank: int = 0
    world_size: int = 1
    trust_remote_code: bool = False
    loads: Callable[..., LoadedModel] | None = None
    command_line: tuple[tuple[str | int, ...], ...] = ()
    events: list[Event] = field(default_factory=list)

    @property
    def data_rank(self) -> int:
        return self.rank

    @property
    def data_world_size(self) -> int:
        return self.world_size

    @property
    def notices(self) -> list[str]:
        """Messages of all notices."""
        return [event.message for event in self.events if isinstance(event, Notice)]

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def check_stop(self) -> None:
        """Nobody asks it to stop."""

    def plugin(self, kind: str) -> Any:
        return self.plugins[kind]

    def call(self, kind: str, hook: str, request: Any) -> Any:
        return caller(kind, self.plugins[kind]).call(hook, run=self, request=request)

    def named(self, kind: str, name: str, **options: Any) -> PluginCaller:
        entry = find(kind, name)
        plugin = load(entry)
        return PluginCaller(entry, plugin(plugin.Options.model_validate(options), entry.name))

    def installed(self, kind: str) -> list[str]:
        return sorted({entry.name for entry in entries(kind)})

    def load(self, **asked: Any) -> LoadedModel:
        assert self.loads is not None, "the test gives no `loads`"
        return self.loads(**asked)

    def load_policy(self) -> LoadedModel:
        return self.load()

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
