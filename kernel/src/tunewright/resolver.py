"""Check a recipe's sections once, and collect all problems."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewright import registry
from tunewright.errors import Problem, RecipeError
from tunewright.evaluation import evaluation_problems
from tunewright.kinds import Kind, broken, kind_of, sections
from tunewright.launch_section import Launch
from tunewright.output_section import unfold
from tunewright.recipe import Recipe, RecipeFields, Section, StageSection, Training
from tunewright.remedies import instead, names, with_remedy
from tunewright.resolved import Choice, Resolved, ResolvedStage, Wrong, choice_of
from tunewright.source import RecipeProblems, Source, problems_of
from tunewright.yamlio import Path_

_LARGEST = 2**53  # larger integers are not exact in JSON, and no option needs one


class Resolver:
    """Resolves one recipe from values to plugins. `value` is changed in place."""

    def __init__(self, value: dict[str, Any], source: Source, look: bool) -> None:
        self.value, self.source, self.look = value, source, look
        self.problems: list[Problem] = []
        self._read: dict[Path_, list[Any]] = {}  # sources shared by several stages

    def resolved(self, combined: bool) -> Resolved:
        """The recipe with its plugins. combined: whether they may object. Raises
        RecipeProblems."""
        if "stage" in self.value and "stages" not in self.value:
            self.value["stages"] = [self.value.pop("stage")]
            self.source.lines.setdefault(("stage",), 0)
        self.problems += unfold(self.value)
        fields = self._fields()
        choices, lists = self._plugins()
        if fields and fields.launch.needs_launcher and (launcher := self._launcher(fields.launch)):
            choices["launcher"] = launcher
        stages = self._stages(fields, choices.get("dataset")) if fields else []
        said = {problem.path for problem in self.problems}
        self.problems += [each for each in _unusable(self.value, ()) if each.path not in said]
        self._stop()
        assert fields is not None
        found = Resolved(
            self._written(fields, choices, lists, stages),
            self.source,
            choices,
            lists,
            stages,
            self.look,
        )
        for choice in found.all_choices() if combined else ():
            self.problems += self._objections(choice, found)
        self.problems += evaluation_problems(found) if combined else ()
        self._stop()
        return found

    def _stop(self) -> None:
        if self.problems:
            raise RecipeProblems(dict.fromkeys(self.problems), self.source)

    # ---- fields that name no plugin --------------------------------------------------------------

    def _fields(self) -> RecipeFields | None:
        known = sections()
        if "stage" in self.value:
            self.problems.append(Problem(("stage",), "has both stage and stages; one is enough"))
        own = {key: item for key, item in self.value.items() if key not in known and key != "stage"}
        for key in [key for key in own if key not in RecipeFields.model_fields]:
            del own[key]
            hints = [
                instead(str(key)),
                *(f"the kind {name} is broken: {broken[name]}" for name in broken),
            ]
            self.problems.append(Problem((key,), "unknown key", "; ".join(filter(None, hints))))
        try:
            return RecipeFields.model_validate(own)
        except ValidationError as failure:
            self.problems += map(with_remedy, problems_of(failure, (), RecipeFields))
        return self._good_fields(own)

    def _good_fields(self, own: dict[str, Any]) -> RecipeFields | None:
        """The recipe without its invalid fields, so that the others are checked too."""
        wrong = {problem.path[0] for problem in self.problems if problem.path}
        kept = {key: item for key, item in own.items() if key not in wrong}
        try:
            return RecipeFields.model_validate({"model": "-", "output": "-", **kept})
        except ValidationError:
            return None  # nothing else can be checked without stages

    # ---- sections that name plugins --------------------------------------------------------------

    def _plugins(self) -> tuple[dict[str, Choice], dict[str, list[Choice]]]:
        choices: dict[str, Choice] = {}
        lists: dict[str, list[Choice]] = {}
        for key, kind in sections().items():
            if kind.many:
                lists[kind.name] = self._several(key, kind)
            elif choice := self._one(kind, *self._chosen(key, kind)):
                choices[kind.name] = choice
                self._check_shorthand(key, kind, choice)
        return choices, lists

    def _chosen(self, key: str, kind: Kind) -> tuple[Any, Path_]:
        """Value and place of a section; of its shorthand or default if it is absent."""
        written, short = self.value.get(key), self._short(kind)
        if written is not None:
            return written, (key,)
        if short is not None:
            return short, ("training", kind.shorthand)
        if kind.required and not kind.defaults:
            self.problems.append(Problem((key,), "is missing", names(kind.name)))
        return kind.defaults[0] if kind.required and kind.defaults else None, (key,)

    def _check_shorthand(self, key: str, kind: Kind, choice: Choice) -> None:
        short = self._short(kind)
        if short is not None and short not in (choice.entry.name, choice.entry.qualified):
            problem = f"is {short!r}, and {key} names {choice.entry.name!r}"
            path = ("training", kind.shorthand)
            self.problems.append(Problem(path, problem, "leave out one of them"))

    def _short(self, kind: Kind) -> Any:
        """Plugin named by the field of `training` that is the kind's shorthand."""
        training = self.value.get("training")
        is_there = kind.shorthand and isinstance(training, dict)
        return training.get(kind.shorthand) if is_there and training else None

    def _several(self, key: str, kind: Kind) -> list[Choice]:
        written = self.value.get(key)
        written = list(kind.defaults) if written is None else written
        if not isinstance(written, list):
            hint = f"write [{written:.80}]" if isinstance(written, str) else names(kind.name)
            self.problems.append(Problem((key,), f"found {written!r:.80}, expected a list", hint))
            return []
        found = (self._one(kind, item, (key, number)) for number, item in enumerate(written))
        return [choice for choice in found if choice]

    def _one(self, kind: Kind, written: Any, at: Path_) -> Choice | None:
        """The plugin of one section; None if it is absent or invalid."""
        if written is None and len(at) == 1:
            return None
        try:
            return choice_of(kind.name, Section.model_validate(written), at)
        except ValidationError as failure:
            found = problems_of(failure, at, Section)
            self.problems += [Problem(each.path, each.message, names(kind.name)) for each in found]
        except Wrong as wrong:
            self.problems += wrong.problems
        return None

    def _launcher(self, section: Launch) -> Choice | None:
        written = {"name": section.name or kind_of("launcher").defaults[0], **section.options}
        return self._one(kind_of("launcher"), written, ("launch",))

    # ---- stages ----------------------------------------------------------------------------------

    def _stages(self, fields: RecipeFields, dataset: Choice | None) -> list[ResolvedStage]:
        found = []
        for number, section in enumerate(fields.stages):
            at: Path_ = ("stages", number)
            training = self._training(fields, section, at)
            where = at if section.data is not None else ()
            data = fields.data if section.data is None else section.data
            if not any("data" in each.path for each in self.problems):
                self._check_filled(data, (*where, "data"))
            entries = self._entries(dataset, data, (*where, "data"))
            where = at if section.eval_data is not None else ()
            sets = fields.eval_data if section.eval_data is None else section.eval_data
            evals = {
                name: self._entries(dataset, written, (*where, "eval_data", name))
                for name, written in sets.items()
            }
            for name, written in sets.items():
                self._check_filled(written, (*where, "eval_data", name))
            named = self._named_by(section, at)
            try:
                choice = choice_of("stage", Section(name=section.name, **section.options), at)
            except Wrong as wrong:
                self.problems += wrong.problems
            else:
                found.append(ResolvedStage(choice, section, training, entries, evals, named))
        return found

    def _check_filled(self, sources: list[Any], at: Path_) -> None:
        if not sources:
            problem = "is empty, expected at least one source"
            self.problems.append(Problem(at, problem, "such as - path: my.jsonl"))

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
            if name is not None and (choice := self._one(kind, name, place)):
                found[kind.name] = choice
        return found

    def _entries(self, dataset: Choice | None, written: list[Any], at: Path_) -> list[Any]:
        """The sources as the dataset plugin's own Entry objects."""
        if dataset is None:
            return []
        if at not in self._read:
            self._read[at] = [
                self._entry(dataset, entry, (*at, number)) for number, entry in enumerate(written)
            ]
        return self._read[at]

    def _entry(self, dataset: Choice, entry: Any, at: Path_) -> Any:
        root = self.value["data_root"]
        if not isinstance(root, str):  # reported as a problem of its own
            return None
        model = getattr(dataset.plugin, "Entry", None)
        if model and not isinstance(entry, dict):
            hint = f"such as {{{next(iter(model.model_fields), '')}: {entry}}}"
            self.problems.append(Problem(at, f"found {entry!r:.80}, expected a mapping", hint))
            return None
        context = {"root": Path(root), "dataset": dataset.options} if self.look else None
        try:
            return model.model_validate(entry, context=context)  # type: ignore[union-attr]
        except ValidationError as failure:
            self.problems += problems_of(failure, at, model)  # type: ignore[arg-type]
        except RecipeError as error:
            self.problems.append(Problem(at, error.problem, error.hint))
        except Exception as error:  # a plugin's validator may raise anything
            self.problems.append(Problem(at, registry.brokenness(dataset.entry, error)))
        return None

    # ---- the whole -------------------------------------------------------------------------------

    def _objections(self, choice: Choice, found: Resolved) -> list[Problem]:
        try:
            return list(choice.make().objections(found))
        except RecipeError as error:  # places begin with the kind: `stage.packing`
            kind, *path = error.place.split(".")
            inner = path if kind == choice.kind else []
            return [Problem((*choice.at, *inner), error.problem, error.hint)]
        except Exception as error:  # a plugin may raise anything
            return [Problem(choice.at, registry.brokenness(choice.entry, error))]

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
            StageSection.model_validate(stage.choice.section().model_dump() | _kept(stage.section))
            for stage in stages
        ]
        if "launcher" in choices:
            launcher = choices["launcher"].section()
            own["launch"] = fields.launch.written(launcher.name, launcher.options)
        for key, kind in sections().items():
            if kind.many:
                own[key] = [choice.section() for choice in lists[kind.name]]
            else:
                own[key] = choices[kind.name].section() if kind.name in choices else None
            if kind.shorthand and kind.name in choices:  # the section replaces it, with its options
                own["training"] = own["training"].model_copy(update={kind.shorthand: None})
        return Recipe.model_validate(own)


def _kept(section: StageSection) -> dict[str, Any]:
    return {name: getattr(section, name) for name in ("data", "eval_data", "training")}


def _unusable(value: Any, path: Path_) -> Iterator[Problem]:
    """Yield numbers that no option means: they would end a run late, or as NaN."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unusable(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unusable(item, (*path, number))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, f"found {value}, expected a finite number")
    elif isinstance(value, int | float) and abs(value) > _LARGEST:
        yield Problem(path, f"found a number beyond {_LARGEST}, expected a smaller one")
