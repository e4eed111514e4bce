"""The model half of a recipe: a model that is used as it is, without training."""

from collections.abc import Sequence
from typing import Any

from tunewright.errors import Problem, did_you_mean
from tunewright.kinds import sections
from tunewright.launch_section import Launch
from tunewright.overrides import override
from tunewright.recipe import Recipe, RecipeFields, Training
from tunewright.resolved import Choice, Resolved
from tunewright.resolver import Resolver
from tunewright.source import Source

#: sections of a model that is not trained
SECTIONS = ("family", "template", "quantizer", "adapter", "engine")


def resolve_model(
    model: str, overrides: Sequence[str] = (), *, data: bool = False, **written: Any
) -> Resolved:
    """Resolve a model without data, stages, loggers and run folder.

    model: a folder or hub id. overrides: such as `template=chatml`, applied last. data: with a
    dataset plugin, for verbs that read data. written: sections of a recipe, such as the adapter.
    Raises RecipeProblems.
    """
    value: dict[str, Any] = {"model": model, **written}
    source = Source("command line")
    for text in overrides:
        override(value, source, text)
    names = (*SECTIONS, "dataset") if data else SECTIONS
    return _ModelResolver(value, source, look=False).model_half(names)


class _ModelResolver(Resolver):
    def model_half(self, names: Sequence[str]) -> Resolved:
        """The plugins of these sections. Raises RecipeProblems."""
        model, choices = self.value["model"], self._choices(names)
        known = ("model", *names)
        for key in self.value.keys() - {*known}:
            if key in (*RecipeFields.model_fields, *sections(), "stage"):
                hint = f"without a recipe there are {', '.join(known)}"
                self.problems.append(Problem((key,), "belongs to training", hint))
            else:
                self.problems.append(Problem((key,), "unknown key", did_you_mean(key, known)))
        if not (isinstance(model, str) and model):
            self.problems.append(Problem(("model",), f"found {model!r:.80}, expected a text"))
        self._stop()
        own: dict[str, Any] = {
            key: choices[key].section() if key in choices else None for key in names
        }
        recipe = Recipe.model_construct(
            model=model,
            data=[],
            eval_data={},
            stages=[],
            accelerators=[],
            training=Training(),
            launch=Launch(),
            output=model,
            data_root=None,
            **own,
        )
        return Resolved(recipe, self.source, choices, {"logger": []}, [])

    def _choices(self, names: Sequence[str]) -> dict[str, Choice]:
        kinds = {key: sections()[key] for key in names}
        found = {key: self._one(kind, *self._chosen(key, kind)) for key, kind in kinds.items()}
        return {key: choice for key, choice in found.items() if choice}
