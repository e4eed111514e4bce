"""Result of `resolve`: a recipe's plugins, with the entry, class and options of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tunewright import registry
from tunewright.errors import Problem, RecipeError
from tunewright.recipe import Recipe, Section, StageSection, Training
from tunewright.registry import Entry
from tunewright.source import RecipeProblems, Source, problems_of
from tunewright.yamlio import Path_


@dataclass(frozen=True)
class Choice:
    """A plugin that a recipe names, with its checked options."""

    kind: str
    entry: Entry
    plugin: type[Any]  # a subclass of tunewright.Plugin
    options: Any  # plugin.Options
    at: Path_  # its section in the recipe

    def make(self) -> Any:
        """A new instance of the plugin. Raises RecipeError if the plugin refuses."""
        made = self.plugin(self.options, self.entry.name)
        made.at = self.at
        return made

    def section(self) -> Section:
        """The section with all options."""
        options = self.options.model_dump(mode="json")
        defaults = {key: field.default for key, field in type(self.options).model_fields.items()}
        unset = {key for key in options if options[key] is None and defaults.get(key) is None}
        name = self.entry.name if len(_claims(self.entry)) == 1 else self.entry.qualified
        return Section(name=name, **{k: options[k] for k in options if k not in {*unset, "name"}})


@dataclass
class ResolvedStage:
    """A stage with its data; its own fields override the recipe's."""

    choice: Choice
    section: StageSection
    training: Training
    data: list[Any]  # the dataset plugin's Entry objects
    eval_data: dict[str, list[Any]]
    choices: dict[str, Choice]  # kind → plugin that this stage's training names (scheduler)

    def place(self, field: str) -> Path_:
        """Path of a field of `training` for this stage, as set in the recipe."""
        own = (*self.choice.at, "training") if field in self.section.training else ("training",)
        return (*own, field)


@dataclass
class Resolved:
    """A recipe with its plugins found and all options checked."""

    recipe: Recipe  # with all defaults
    source: Source
    choices: dict[str, Choice]  # kind → its plugin, for kinds with one plugin
    lists: dict[str, list[Choice]]  # kind → its plugins, for the other kinds
    stages: list[ResolvedStage]
    looked: bool = False  # whether data sources may be looked at, to find problems
    smoke_of: str | None = None  # the model that `tiny` stands for in a --smoke run

    def plugin(self, kind: str) -> type[Any] | None:
        """The plugin class of a kind; None if the recipe has none."""
        return self.choices[kind].plugin if kind in self.choices else None

    def options(self, kind: str) -> Any:
        """The checked options of the plugin of a kind; None if the recipe has none."""
        return self.choices[kind].options if kind in self.choices else None

    def all_choices(self) -> Iterator[Choice]:
        """Every plugin that the recipe names."""
        yield from self.choices.values()
        for several in self.lists.values():
            yield from several
        for stage in self.stages:
            yield stage.choice
            yield from stage.choices.values()


class Wrong(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems


def choice_of(kind: str, section: Section, at: Path_) -> Choice:
    """Find and import a section's plugin, and check its options. Raises Wrong."""
    try:
        entry = registry.find(kind, section.name)
        plugin = registry.load(entry)
        return Choice(kind, entry, plugin, plugin.Options.model_validate(section.options), at)
    except RecipeError as error:
        raise Wrong([Problem(at, error.problem, error.hint)]) from error
    except ValidationError as failure:
        raise Wrong(problems_of(failure, at, plugin.Options)) from failure
    except Exception as error:  # a plugin's validator may raise anything
        raise Wrong([Problem(at, registry.brokenness(entry, error))]) from error


def choose(kind: str, section: Section, source: Source, at: Path_) -> Choice:
    """`choice_of` for a plugin that is chosen during a run. Raises RecipeError."""
    try:
        return choice_of(kind, section, at)
    except Wrong as wrong:
        raise RecipeProblems(wrong.problems, source) from wrong


def _claims(entry: Entry) -> list[Entry]:
    return [other for other in registry.entries(entry.kind) if other.name == entry.name]
