"""Combinations that a plugin must refuse, and one that it must not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tunewright.check import RecipeProblems, resolve
from tunewright.kinds import kind_of
from tunewright.registry import Entry, load
from tunewright_conformance.bench import a_family, family_options, on_bench
from tunewright_conformance.dataset import messages_stage
from tunewright_conformance.suite import Suite
from tunewright_conformance.trial import merged


class InARecipe(Suite):
    """For kinds whose plugins stand in a section of a recipe."""

    kinds: ClassVar[tuple[str, ...]] = ()

    #: sections of the recipe that the plugin needs, such as {"adapter": "lora"}
    sections: Mapping[str, Any] = {}

    def given(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`sections` and more, with the model on the GPU where the plugin needs one."""
        device = {"family": {"device": "cuda"}} if self.needs_gpu else {}
        return merged(merged(device, self.sections), more or {})


class Refusals(InARecipe):
    """Combinations that are refused."""

    anywhere = frozenset({"test_refuses", "test_may_be_used"})

    #: further sections of a recipe, such as {"adapter": "full"}: each must be refused
    refuses: Sequence[Mapping[str, Any]] = ()

    def test_refuses(self, entry: Entry, options: dict[str, Any]) -> None:
        """Each combination of `refuses` is refused by `recipe check`, with the reason and the
        alternative."""
        for sections in self.refuses:
            check_refused(entry, options, self.given(sections))

    def test_may_be_used(self, entry: Entry, options: dict[str, Any]) -> None:
        """A recipe with nothing else out of the ordinary passes `recipe check`."""
        resolve(a_recipe(entry, options, self.given()))


def check_refused(
    entry: Entry, options: dict[str, Any], sections: Mapping[str, Any], place: str = ""
) -> None:
    """The plugin objects to a recipe that is right but for the combination. place: of the problem,
    a dotted path."""
    recipe = a_recipe(entry, options, sections)
    resolve(recipe, combined=False)
    try:
        resolve(recipe)
    except RecipeProblems as error:
        for problem in error.problems:
            assert problem.message and problem.hint, f"says no reason or no alternative: {problem}"
        places = [".".join(map(str, problem.path)) for problem in error.problems]
        assert not place or any(found.endswith(place) for found in places), places
    else:
        pytest.fail(f"`recipe check` accepts {entry.name} with {dict(sections)}")


def a_recipe(
    entry: Entry, options: dict[str, Any], sections: Mapping[str, Any], folder: Path = Path("run")
) -> dict[str, Any]:
    """A recipe on a tiny model with the plugin in its section, and further sections."""
    family = a_family()
    plain = {
        "model": "tiny",
        "family": {"name": family.name, **family_options(family)},
        "data": [{"path": "none.jsonl"}],
        "stage": messages_stage(),
        "loggers": [],
        "output": str(folder),
    }
    if getattr(load(entry), "needs_processes", False):
        plain["launch"] = {"processes": 2}
    return merged(plain, with_plugin(entry, options, sections))


def with_plugin(
    entry: Entry, options: dict[str, Any], sections: Mapping[str, Any]
) -> dict[str, Any]:
    """Sections of a recipe, with the plugin's own."""
    kind = kind_of(entry.kind)
    made = on_bench(entry, **options).plugin.options
    written = {"name": entry.qualified, **made.model_dump(mode="json", exclude_unset=True)}
    return merged(sections, {kind.key: [written] if kind.many else written})
