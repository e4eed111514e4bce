"""From a recipe to its plugins: `resolve` makes each section's entry, class and Options once.

Everything after it, the command line, `recipe check`, runs and the web page, uses the result. All
problems are collected, not only the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tunewright import yamlio
from tunewright.errors import Problem, RecipeError, did_you_mean
from tunewright.kinds import Kind, broken, sections
from tunewright.overrides import override
from tunewright.recipe import Recipe, RecipeFields, Section, StageSection, Training
from tunewright.resolved import Choice, Resolved, ResolvedStage, Wrong, choice_of, choose
from tunewright.source import RecipeProblems, Source, problems_of
from tunewright.yamlio import Path_

__all__ = [
    "Choice",
    "RecipeProblems",
    "Resolved",
    "ResolvedStage",
    "Source",
    "choose",
    "resolve",
    "with_values",
]


def resolve(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    look: bool = False,
    source: Source | None = None,
    combined: bool = True,
) -> Resolved:
    """Read, check and complete a recipe.

    recipe: a YAML file, or its values as a mapping. overrides: `training.epochs=3`, laid over it.
    look: whether data sources are looked for. source: where a mapping was written, for errors.
    combined: whether plugins may object to each other.
    Imports the plugins that the recipe names, and neither torch nor transformers. Raises
    RecipeProblems, a RecipeError, with everything that is wrong.
    """
    if isinstance(recipe, Mapping):
        value: Any = _copied(dict(recipe))
        source = source or Source()
        root = Path()
    else:
        path = Path(recipe)
        value, lines = yamlio.read(path)
        source, root = Source(str(path), lines), path.resolve().parent
        if not isinstance(value, dict):
            problem = "found no sections, expected at least model, data, stage and output"
            raise RecipeError(problem, place=str(path))
    for text in overrides:
        override(value, source, text)
    value.setdefault("data_root", str(root))
    return _Resolver(value, source, look).resolved(combined)


class _Resolver:
    """Collects problems while it goes through a recipe's sections."""

    def __init__(self, value: dict[str, Any], source: Source, look: bool) -> None:
        self.value, self.source, self.look = value, source, look
        self.problems: list[Problem] = []

    def resolved(self, combined: bool) -> Resolved:
        if "stage" in self.value and "stages" not in self.value:
            self.value["stages"] = [self.value.pop("stage")]
            self.source.lines.setdefault(("stage",), 0)
        fields = self._fields()
        choices, lists = self._plugins()
        stages = self._stages(fields, choices.get("dataset")) if fields else []
        self._stop()
        assert fields is not None
        found = Resolved(
            self._written(fields, choices, lists, stages), self.source, choices, lists, stages
        )
        for choice in found.all_choices() if combined else ():
            self.problems += self._objections(choice, found)
        self._stop()
        return found

    def _stop(self) -> None:
        if self.problems:
            raise RecipeProblems(dict.fromkeys(self.problems), self.source)

    # ---- fields that name no plugin --------------------------------------------------------------

    def _fields(self) -> RecipeFields | None:
        known = sections()
        if "stage" in self.value:
            self.problems.append(Problem((), "has both stage and stages; one is enough"))
        own = {key: item for key, item in self.value.items() if key not in known and key != "stage"}
        for key in [key for key in own if key not in RecipeFields.model_fields]:
            del own[key]
            reason = f"the kind {key!r} is broken: {broken[key]}" if key in broken else ""
            hint = reason or did_you_mean(str(key), [*RecipeFields.model_fields, "stage", *known])
            self.problems.append(Problem((key,), "unknown key", hint))
        try:
            return RecipeFields.model_validate(own)
        except ValidationError as failure:
            self.problems += problems_of(failure, (), RecipeFields)
        return self._good_fields(own)

    def _good_fields(self, own: dict[str, Any]) -> RecipeFields | None:
        """The recipe without the fields that are wrong, so that the others are checked too."""
        wrong = {problem.path[0] for problem in self.problems if problem.path}
        kept = {key: item for key, item in own.items() if key not in wrong}
        try:
            return RecipeFields.model_validate({"model": "-", "output": "-", **kept})
        except ValidationError:
            return None  # without stages there is nothing to go on with

    # ---- sections that name plugins --------------------------------------------------------------

    def _plugins(self) -> tuple[dict[str, Choice], dict[str, list[Choice]]]:
        choices: dict[str, Choice] = {}
        lists: dict[str, list[Choice]] = {}
        for key, kind in sections().items():
            if kind.many:
                lists[kind.name] = self._several(key, kind)
            elif choice := self._one(kind, self._default(key, kind), self._place(key, kind)):
                choices[kind.name] = choice
                self._check_shorthand(key, kind, choice)
        return choices, lists

    def _place(self, key: str, kind: Kind) -> Path_:
        is_short = self.value.get(key) is None and self._short(kind)
        return ("training", kind.shorthand) if is_short else (key,)

    def _check_shorthand(self, key: str, kind: Kind, choice: Choice) -> None:
        short = self._short(kind)
        if short and short not in (choice.entry.name, choice.entry.qualified):
            problem = f"is {short!r}, and {key} names {choice.entry.name!r}"
            path = ("training", kind.shorthand)
            self.problems.append(Problem(path, problem, f"leave out one, or {key}"))

    def _default(self, key: str, kind: Kind) -> Any:
        written = self.value.get(key)
        if written is not None or not kind.required:
            return written
        return self._short(kind) or (kind.defaults[0] if kind.defaults else None)

    def _short(self, kind: Kind) -> Any:
        """The name in the field of `training` that is the kind's shorthand."""
        training = self.value.get("training")
        return training.get(kind.shorthand) if isinstance(training, dict) else None

    def _several(self, key: str, kind: Kind) -> list[Choice]:
        written = self.value.get(key)
        written = list(kind.defaults) if written is None else written
        if not isinstance(written, list):
            self.problems.append(Problem((key,), f"found {written!r}, expected a list"))
            return []
        found = (self._one(kind, item, (key, number)) for number, item in enumerate(written))
        return [choice for choice in found if choice]

    def _one(self, kind: Kind, written: Any, at: Path_) -> Choice | None:
        """The plugin of one section; None where there is none, or it is wrong."""
        if written is None:
            return None
        try:
            return choice_of(kind.name, Section.model_validate(written), at)
        except ValidationError as failure:
            self.problems += problems_of(failure, at, Section)
        except Wrong as wrong:
            self.problems += wrong.problems
        return None

    # ---- stages ----------------------------------------------------------------------------------

    def _stages(self, fields: RecipeFields, dataset: Choice | None) -> list[ResolvedStage]:
        found = []
        for number, section in enumerate(fields.stages):
            at: Path_ = ("stages", number)
            try:
                choice = choice_of("stage", Section(name=section.name, **section.options), at)
            except Wrong as wrong:
                self.problems += wrong.problems
                continue
            training = self._training(fields, section, at)
            where = at if section.data is not None else ()
            data = fields.data if section.data is None else section.data
            if not data:
                problem = "is empty, expected at least one source"
                self.problems.append(Problem((*where, "data"), problem))
            entries = self._entries(dataset, data, (*where, "data"))
            where = at if section.eval_data is not None else ()
            sets = fields.eval_data if section.eval_data is None else section.eval_data
            evals = {
                name: self._entries(dataset, written, (*where, "eval_data", name))
                for name, written in sets.items()
            }
            named = self._named_by(section, at)
            found.append(ResolvedStage(choice, section, training, entries, evals, named))
        return found

    def _training(self, fields: RecipeFields, section: StageSection, at: Path_) -> Training:
        laid = {**fields.training.model_dump(exclude_unset=True), **section.training}
        try:
            return Training.model_validate(laid) if section.training else fields.training
        except ValidationError as failure:
            self.problems += problems_of(failure, (*at, "training"), Training)
            return fields.training

    def _named_by(self, section: StageSection, at: Path_) -> dict[str, Choice]:
        """Plugins that the stage's own training names, such as its scheduler."""
        found = {}
        for kind in sections().values():
            name = section.training.get(kind.shorthand) if kind.shorthand else None
            place = (*at, "training", kind.shorthand)
            if name and (choice := self._one(kind, name, place)):
                found[kind.name] = choice
        return found

    def _entries(self, dataset: Choice | None, written: list[Any], at: Path_) -> list[Any]:
        """The sources as the dataset plugin's own Entry objects."""
        if dataset is None:
            return []
        root = Path(self.value["data_root"] or ".")
        context = {"root": root, "dataset": dataset.options} if self.look else None
        found = []
        for number, entry in enumerate(written):
            try:
                found.append(dataset.plugin.Entry.model_validate(entry, context=context))
            except ValidationError as failure:
                self.problems += problems_of(failure, (*at, number), dataset.plugin.Entry)
        return found

    # ---- the whole -------------------------------------------------------------------------------

    def _objections(self, choice: Choice, found: Resolved) -> list[Problem]:
        try:
            return list(choice.make().objections(found))
        except RecipeError as error:  # places begin with the kind: `stage.packing`
            kind, *path = error.place.split(".")
            inner = path if kind == choice.kind else []
            return [Problem((*choice.at, *inner), error.problem, error.hint)]

    def _written(
        self,
        fields: RecipeFields,
        choices: dict[str, Choice],
        lists: dict[str, list[Choice]],
        stages: list[ResolvedStage],
    ) -> Recipe:
        """The recipe with all options written out."""
        own: dict[str, Any] = {name: getattr(fields, name) for name in RecipeFields.model_fields}
        own["stages"] = [
            StageSection(**stage.choice.section().model_dump(), **_kept(stage.section))
            for stage in stages
        ]
        for key, kind in sections().items():
            if kind.many:
                own[key] = [choice.section() for choice in lists[kind.name]]
            else:
                own[key] = choices[kind.name].section() if kind.name in choices else None
        return Recipe.model_validate(own)


def _kept(section: StageSection) -> dict[str, Any]:
    return {name: getattr(section, name) for name in ("data", "eval_data", "training")}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def with_values(resolved: Resolved, **changes: Any) -> Resolved:
    """The recipe resolved again with other top-level values."""
    again = resolve(resolved.recipe.as_mapping() | changes, source=resolved.source)
    return replace(again, smoke_of=resolved.smoke_of)
