"""Tests for every plugin, of any kind."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import requires
from typing import Any, get_args

import pluggy
import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel, ValidationError

from tunewright import Plugin, PluginOptions, Stage
from tunewright.descriptions import described
from tunewright.kinds import kinds
from tunewright.registry import Entry, PluginCaller, load
from tunewright_conformance.imports import Imported, Imports
from tunewright_conformance.plugin import suites_of
from tunewright_conformance.subjects import build
from tunewright_conformance.suite import Suite, deviations, is_sentence

HOOKS = [
    name
    for module in dict.fromkeys(kind.specs for kind in kinds().values())
    for name, spec in vars(import_module(module)).items()
    if inspect.isfunction(spec) and hasattr(spec, "tunewright_spec")
]


class TestDistribution(Suite):
    kinds = tuple(kinds())
    works = False

    def test_import_is_light(self, entry: Entry, imports: Imports) -> None:
        """Importing the plugin imports no torch or transformers, opens no connection, sets no
        environment variable."""
        assert imports[entry.kind, entry.qualified] == Imported()

    def test_metadata(self, entry: Entry) -> None:
        """The distribution has a one-line description, and a range of kernel versions."""
        assert entry.summary, f"{entry.distribution} has no description in its pyproject.toml"
        needs = [Requirement(line) for line in requires(entry.distribution) or []]
        kernel = [need for need in needs if need.name == "tunewright"]
        assert kernel, f"{entry.distribution} does not depend on tunewright"
        assert kernel[0].specifier, (
            "the dependency on tunewright names no versions: write tunewright>=X,<Y"
        )


class TestHygiene(Suite):
    # a command is a function, not a Plugin
    kinds = tuple(kind for kind in kinds() if kind != "command")
    works = False

    def test_class(self, entry: Entry) -> None:
        """The plugin is a documented subclass of Plugin; a stage declares what it needs."""
        plugin = load(entry)
        assert issubclass(plugin, Plugin)
        assert plugin.__doc__, f"{plugin.__name__} has no docstring"
        assert issubclass(plugin, Stage) == (entry.kind == "stage")
        if entry.kind == "stage":
            assert plugin.rows, "a stage says on which sort of rows it trains"

    def test_options_are_documented(self, entry: Entry) -> None:
        """Every option, also in nested models, has a description, and a JSON schema can be made."""
        options = load(entry).Options
        assert issubclass(options, PluginOptions)
        for model in models_in(options):
            about = described(model)
            for name, field in model.model_fields.items():
                assert about.get(name), f"{model.__qualname__}.{name} has no description"
                assert not field.is_required() or field.examples, (
                    f"{name} is required: give it examples=[…]"
                )
        assert options.model_json_schema()

    def test_options_are_strict(self, entry: Entry) -> None:
        """An unknown option is refused, and options cannot be changed later."""
        for model in models_in(load(entry).Options):
            assert model.model_config.get("frozen"), f"{model.__qualname__} is not frozen"
            with pytest.raises(ValidationError) as refused:
                model.model_validate({"no_such_option": 1})
            assert "extra_forbidden" in {error["type"] for error in refused.value.errors()}

    def test_hooks(self, entry: Entry) -> None:
        """All hooks of the kind are implemented, and none that are not its own, each with the
        arguments of its specification."""
        plugin = build(entry)
        if entry.kind == "accelerator":
            check_accelerator(plugin)
            return
        # raises if a hook is missing, misspelt, or takes unknown arguments
        PluginCaller(entry, plugin)
        kind = kinds()[entry.kind]
        implemented = set(hooks_of(plugin))
        assert implemented <= {*kind.hooks, *kind.optional}, (
            f"a {entry.kind} does not implement these hooks"
        )

    def test_hook_signatures(self, entry: Entry) -> None:
        """No argument of a hook has a default (pluggy versions differ in passing it), and a method
        with the name of a hook is one."""
        plugin = build(entry)
        for name in hooks_of(plugin):
            for argument in inspect.signature(getattr(plugin, name)).parameters.values():
                assert argument.default is argument.empty, f"{name}: {argument.name} has a default"
        unmarked = [name for name in HOOKS if name in dir(plugin) and name not in hooks_of(plugin)]
        assert not unmarked, "called like a hook, without @hookimpl: the kernel would never call it"

    def test_deviations(self, entry: Entry) -> None:
        """Each declared deviation names a test of this plugin, and gives the reason in a
        sentence."""
        known = names_of_tests(entry.kind)
        for test, reason in deviations(entry).items():
            assert test in known, f"deviations: there is no test {test!r} for the kind {entry.kind}"
            assert is_sentence(reason), (
                f"deviations: {test}: the reason is no full sentence: {reason!r}"
            )


def models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the model, and the models in its fields."""
    yield model
    for field in model.model_fields.values():
        for found in _types_in(field.annotation):
            if isinstance(found, type) and issubclass(found, BaseModel):
                yield from models_in(found)


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _types_in(argument)


def hooks_of(plugin: Plugin) -> list[str]:
    """Hooks that a plugin implements."""
    manager = pluggy.PluginManager("tunewright")
    for name in dict.fromkeys(kind.specs for kind in kinds().values()):
        manager.add_hookspecs(import_module(name))
    manager.register(plugin)
    return [caller.name for caller in manager.get_hookcallers(plugin) or []]


def check_accelerator(plugin: Plugin) -> None:
    """An accelerator wraps at least one hook of the contract, and replaces none."""
    manager = pluggy.PluginManager("tunewright")
    for name in dict.fromkeys(kind.specs for kind in kinds().values()):
        manager.add_hookspecs(import_module(name))
    manager.register(plugin)
    manager.check_pending()
    callers = manager.get_hookcallers(plugin) or []
    assert callers, "wraps no hook"
    for caller in callers:
        assert all(impl.wrapper for impl in caller.get_hookimpls()), (
            f"replaces {caller.name}: it may only wrap it"
        )


def names_of_tests(kind: str) -> set[str]:
    """The names of the tests that a plugin of this kind has to pass."""
    return {name for suite in suites_of(kind) for name in dir(suite) if name.startswith("test_")}
