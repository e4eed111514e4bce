"""What the tests put a plugin on: a run that does nothing, and calls that go the way the kernel's go."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.events import Event
from tunewright.recipe import Recipe
from tunewright.registry import Entry, Handle
from tunewright_conformance.subjects import build


@dataclass
class Bench:
    """Stands where hooks expect the run, for plugins that need no other plugin."""

    folder: Path
    rank: int = 0
    world_size: int = 1
    trust_remote_code: bool = False
    events: list[Event] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        data = [{"path": "data.jsonl"}]
        return Recipe.model_validate({"model": "tiny", "data": data, "stage": "sft", "output": str(self.folder)})

    def emit(self, event: Event) -> None:
        self.events.append(event)


def on_bench(entry: Entry, **options: Any) -> Handle:
    """The plugin, ready to be called as a run calls it, without accelerators."""
    return Handle(entry, build(entry, **options))
