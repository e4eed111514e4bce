"""The wizard of a new run: its steps, which field is where, and what a page of it shows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunewright.errors import Problem
from tunewright_web import looking
from tunewright_web.begin import free_name
from tunewright_web.checking import TAKEN, Checked, check
from tunewright_web.drafts import Draft
from tunewright_web.errors import WebError
from tunewright_web.form import Field, Form, Plugin, Section, folded, shown
from tunewright_web.job import Job
from tunewright_web.merging import rows
from tunewright_web.recipe_form import read
from tunewright_web.training import queue_training
from tunewright_web.values import unparse
from tunewright_web.web import Web

STEPS = {"model": "Model", "data": "Data", "method": "Method", "plan": "Plan"}
_STEP_OF = {
    **dict.fromkeys(("model", "family", "template"), "model"),
    **dict.fromkeys(("data", "eval_data", "dataset", "data_root"), "data"),
    "output": "plan",
}
#: sections that are shown in a place of their own
_PLACED = ("stages", "adapter", "quantizer", "family", "template", "dataset")
ROWS = "@rows."  # prefix of hidden fields: number of rows that the page shows


_SENTENCE = re.compile(r"[.:] |[。；]")


def step_of(name: str) -> str:
    """The step that shows a field."""
    return _STEP_OF.get(name.partition(".")[0], "method")


@dataclass
class Shown:
    """View of a draft for the templates. extra: rows that are shown beside those with a text."""

    form: Form
    draft: Draft
    checked: Checked
    is_checked: bool = False  # whether all problems are shown, or only what cannot be read
    extra: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        listed = self.checked.problems if self.is_checked else self.checked.reading.problems
        self.problems: list[tuple[str, Problem]] = [
            (self.checked.reading.name(problem.path), problem) for problem in listed
        ]

    def text(self, name: str) -> str:
        """Text that was typed in a field."""
        return self.draft.texts.get(name, "")

    def problem(self, name: str) -> Problem | None:
        """The first problem of a field, or below it where it is one box."""
        found = [each for own, each in self.problems if own == name]
        if not found and f"{name}.name" not in self.draft.texts:
            found = [each for own, each in self.problems if own.startswith(f"{name}.")]
        return found[0] if found else None

    def problems_of(self, name: str, known: list[str]) -> list[tuple[str, Problem]]:
        """Problems at or below a name that no field of it shows."""
        return [
            (own, each)
            for own, each in self.problems
            if (own == name or own.startswith(f"{name}."))
            and not any(own == field or own.startswith(f"{field}.") for field in known)
        ]

    def is_open(self, names: list[str]) -> bool:
        """Whether a fold shows something that was typed, or is wrong."""
        return any(self.problem(name) is not None for name in names)

    def used(self, names: list[str]) -> int:
        """Number of fields with a text."""
        return sum(bool(self.text(name)) for name in names)

    def rows(self, name: str, least: int = 0) -> int:
        """Rows of a list that are shown."""
        return max(rows(self.draft.texts, name), self.extra.get(name, 0), least)

    def plugin(self, section: Section, name: str) -> Plugin | None:
        """The plugin whose options are shown."""
        default = section.defaults[0] if section.defaults and not section.many else ""
        return section.chosen(self.text(f"{name}.name") or default)

    def basic(self, fields: tuple[Field, ...]) -> list[Field]:
        return shown(fields)

    def more(self, fields: tuple[Field, ...]) -> list[Field]:
        return folded(fields)

    def default(self, known: Field) -> str:
        """The default as a text; empty if it is nothing."""
        empty = known.default in (None, "", [], {}) and known.default is not False
        return "" if empty else unparse(known, known.default)

    @staticmethod
    def parted(text: str) -> tuple[str, str]:
        """The first sentences of a help text, and the rest where it is long."""
        if len(text) * (2 if any("\u4e00" <= each <= "\u9fff" for each in text) else 1) <= 170:
            return text, ""
        ends = [found.end() for found in _SENTENCE.finditer(text)]
        at = next((end for end in ends if end >= 20), len(text))
        return text[:at].strip(), text[at:].strip()

    def unknown(self, name: str, fields: tuple[Field, ...]) -> list[str]:
        """Names of texts below a section that none of its fields is for."""
        known = {*(each.key for each in fields), "name", "@set"}
        found = [each for each in self.draft.texts if each.startswith(f"{name}.")]
        return [each for each in found if each.removeprefix(f"{name}.").split(".")[0] not in known]

    def loose(self) -> list[str]:
        """Names of texts that belong to no part of the form."""
        form = self.form
        known = {*form.fields, *form.groups, *form.sections, "data", "eval_data"}
        found = [name for name in self.draft.texts if name.partition(".")[0] not in known]
        lists = [*form.groups, *form.sections, "data", "eval_data"]
        return found + [name for name in lists if name in self.draft.texts]

    def other_sections(self) -> list[tuple[str, Section]]:
        """Sections without a place of their own; the scheduler stands next to the optimizer."""
        order = ["optimizer", "scheduler"]
        order += [key for key in self.form.sections if key not in order]
        found = self.form.sections
        return [(key, found[key]) for key in order if key in found and key not in _PLACED]

    def anchor(self, name: str) -> str:
        """Step and element of a field, for a link to it."""
        if name in self.form.sections or name.rpartition(".")[2].isdecimal():
            name = (
                f"{name}.name" if name.partition(".")[0] in self.form.sections else f"{name}.path"
            )
        name = {"data": "data.0.path", "stages": "stages.0.name"}.get(name, name)
        return name


def opened(
    web: Web, form: Form, draft: Draft, *, is_checked: bool = False, extra: Any = None
) -> Shown:
    """The draft as a page shows it. Without is_checked, the kernel is not asked."""
    if is_checked:
        return Shown(form, draft, check(form, draft.texts, web.workspace), True, extra or {})
    return Shown(form, draft, Checked(read(form, draft.texts)), False, extra or {})


def suggested(web: Web, form: Form, texts: Mapping[str, str], step: str) -> dict[str, str]:
    """Texts that the next step fills in where nothing was typed: the stage that fits the data, and
    a name for the run."""
    found: dict[str, str] = {}
    if step == "method" and not any(name.startswith("stages") for name in texts):
        recipe = read(form, texts).recipe
        found["stages.0.name"] = looking.usual_stage(recipe, web.workspace)
    if step == "plan" and not texts.get("output"):
        parts = [texts.get("model", "").rstrip("/"), texts.get("data.0.path", "")]
        words = [part.rpartition("/")[2].partition(".")[0].lower() for part in parts]
        name = "-".join(word for word in words if word and word.isprintable())[:60] or "run"
        plain = "".join(each if each.isalnum() or each in "-_" else "-" for each in name).strip("-")
        found["output"] = f"runs/{free_name(plain or 'run', web.workspace)}"
    return found


def queue(web: Web, form: Form, texts: Mapping[str, str], *, smoke: bool = False) -> Job:
    """Queue the run of a draft. smoke: a few steps on the tiny twin. Raises WebError with the
    problems of the recipe, of status 409 where the only one is that the output is taken, else
    422."""
    found = check(form, texts, web.workspace)
    if found.problems:
        count = len(found.problems)
        status = 409 if all(each.message.endswith(TAKEN) for each in found.problems) else 422
        raise WebError(f"the recipe has {count} problems", status=status, problems=found.problems)
    return queue_training(web, found.recipe, found.yaml, smoke=smoke)
