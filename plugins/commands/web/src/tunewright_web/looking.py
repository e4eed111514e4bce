"""Looks at a draft that need a child process: rows as the model sees them, and a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tunewright import registry
from tunewright.errors import TunewrightError
from tunewright_web import work
from tunewright_web.checking import path_problems
from tunewright_web.errors import WebError
from tunewright_web.form import installed
from tunewright_web.values import as_yaml
from tunewright_web.workspace import Workspace

ROWS = 2000  # records of each source that are looked at
_BARS = 12
#: kind of rows → the stage that most people mean
_USUAL = {
    "messages": "sft",
    "text": "pretrain",
    "preference": "dpo",
    "unpaired": "kto",
    "prompts": "grpo",
    "retrieval": "embed",
    "labelled": "classify",
    "stepwise": "prm",
}
#: sections that have a part in how rows look
_NEEDED = ("model", "family", "template", "dataset", "data", "stage", "stages", "data_root")


@dataclass
class Sample:
    """A row: its pieces in order, each with whether it is trained."""

    origin: str
    tokens: int
    trained: int
    pieces: list[tuple[str, bool]] = field(default_factory=list)


@dataclass
class Preview:
    """Rows as the model sees them. bars: first and last length, and rows between them."""

    samples: list[Sample]
    rows: int
    trained_tokens: int
    tokens: int
    dropped: dict[str, int]
    bad: list[str]  # rows that cannot be used: file:line: problem
    notes: list[str]
    lengths: list[int]
    median: float
    bars: list[tuple[int, int, int]]
    stage: str

    @property
    def share(self) -> float:
        """Share of tokens that are trained."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0


def preview(
    recipe: Mapping[str, Any], workspace: Workspace, *, key: str, count: int = 5, number: int = 1
) -> Preview:
    """Look at the data of a recipe, which may lack all but a model and data. number: of the stage;
    1 is the first. Raises WebError."""
    if not recipe.get("model"):
        raise WebError("there is no model yet", "choose one in the first step", status=422)
    if not recipe.get("data") and "stages" not in recipe:
        raise WebError("there is no data yet", "name a source", status=422)
    asked = {key: recipe[key] for key in _NEEDED if key in recipe}
    if problems := path_problems(installed(), asked, workspace):
        raise WebError(problems[0].message, problems[0].hint, status=422, problems=problems)
    if "stage" not in asked and "stages" not in asked:
        asked["stage"] = usual_stage(asked, workspace)
    if isinstance(length := _training(recipe).get("max_length"), int):
        asked["training"] = {"max_length": length}
    asked |= {"output": "runs/preview", "loggers": []}
    arguments = ["data", "preview", "RECIPE", *_root(asked, workspace)]
    arguments += ["dataset.on_bad_row=skip", "--json", f"--count={count}"]
    arguments += [f"--limit={ROWS}", f"--stage={number}"]
    answer = work.ask(arguments, as_yaml(asked), workspace.root, key=f"preview {key}")
    if answer.value is None:
        raise _failed(answer, asked)
    return _preview(_within(answer.value, f"{workspace.root}/"), _name(asked, number))


def plan(recipe: Mapping[str, Any], workspace: Workspace, *, key: str) -> list[dict[str, Any]]:
    """The plan of each stage, as `tunewright plan --json` gives it. Raises WebError."""
    arguments = ["plan", "RECIPE", *_root(recipe, workspace), "--json"]
    answer = work.ask(arguments, as_yaml(dict(recipe)), workspace.root, key=f"plan {key}")
    if answer.value is None:
        raise _failed(answer, recipe)
    found: list[dict[str, Any]] = answer.value
    return found


def usual_stage(recipe: Mapping[str, Any], workspace: Workspace) -> str:
    """The stage that fits the first records of the data; the usual one where they do not tell."""
    counts: dict[str, int] = {}
    records = first_records(recipe, workspace)
    for entry in registry.entries("format") if records else ():
        try:
            plugin = registry.load(entry)
            hits = sum(bool(plugin.matches(record)) for record in records)
        except Exception:  # noqa: S112 - one that is broken knows no record
            continue
        counts[plugin.rows[0]] = counts.get(plugin.rows[0], 0) + hits
    rows = max(counts, key=lambda kind: counts[kind], default="")
    installed = [entry.name for entry in registry.entries("stage")]
    name = _USUAL.get(rows, "sft") if counts.get(rows) else "sft"
    return name if name in installed else installed[0]


def first_records(recipe: Mapping[str, Any], workspace: Workspace) -> list[Any]:
    """The first records of the first source; none where they cannot be read at once."""
    sources, section = recipe.get("data"), recipe.get("dataset")
    if not isinstance(sources, list) or not sources or not isinstance(sources[0], dict):
        return []
    options = dict(section) if isinstance(section, dict) else {}
    name = options.pop("name", "") or (section if isinstance(section, str) else "")
    name = name or str(registry.shipped_table()["defaults"]["dataset"])
    try:
        plugin = registry.load(registry.find("dataset", name))
        made = plugin(plugin.Options.model_validate(options), name)
        entry = plugin.Entry.model_validate(sources[0])
        root = Path(workspace.root, str(recipe.get("data_root") or ""))
        found: list[Any] = made.first_records(entry, root)
    except (TunewrightError, ValueError, OSError):
        return []
    return found


def _root(recipe: Mapping[str, Any], workspace: Workspace) -> list[str]:
    """Relative data starts at the workspace, not at the file that the child reads."""
    return (
        []
        if recipe.get("data_root")
        else [f"data_root={as_yaml(str(workspace.root), inline=True)}"]
    )


def _training(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found = recipe.get("training")
    return found if isinstance(found, dict) else {}


def _name(recipe: Mapping[str, Any], number: int) -> str:
    stages = recipe.get("stages") or [recipe.get("stage")]
    stage = stages[number - 1] if number <= len(stages) else ""
    return str(stage.get("name", "") if isinstance(stage, dict) else stage)


def _failed(answer: work.Answer, recipe: Mapping[str, Any]) -> WebError:
    lines = [line for line in answer.said.splitlines() if line.strip()]
    more = "" if len(lines) < 2 else "\n".join(lines[-12:])
    return WebError(answer.error, more if more != answer.error else "", status=422)


def _within(value: Any, root: str) -> Any:
    """The value with paths as they are named in the workspace."""
    if isinstance(value, str):
        return value.replace(root, "")
    if isinstance(value, dict):
        return {_within(key, root): _within(each, root) for key, each in value.items()}
    if isinstance(value, list) and not (value and isinstance(value[0], int)):
        return [_within(each, root) for each in value]
    return value


def _preview(found: dict[str, Any], stage: str) -> Preview:
    lengths = sorted(found["lengths"])
    bad = [note.removeprefix("left out: ") for note in found["notes"] if _is_bad(note)]
    return Preview(
        samples=[_sample(each) for each in found["samples"]],
        rows=found["rows_read"],
        trained_tokens=found["trained_tokens"],
        tokens=sum(lengths),
        dropped=found["dropped"],
        bad=bad,
        notes=[note for note in found["notes"] if not _is_bad(note)],
        lengths=lengths,
        median=median(lengths) if lengths else 0,
        bars=histogram(lengths),
        stage=stage,
    )


def _is_bad(note: str) -> bool:
    return note.startswith("left out: ")


def _count(ids: Any) -> int:
    """Number of token ids in a column of them, or of lists of them."""
    return sum(_count(each) if isinstance(each, list) else 1 for each in ids or ())


def _sample(found: dict[str, Any]) -> Sample:
    columns = found["columns"]
    if "labels" in columns:
        count, trained = len(columns["labels"]), sum(label != -100 for label in columns["labels"])
    else:  # preferences and prompts: answers are trained
        ids = {name: _count(each) for name, each in columns.items() if name.endswith("_ids")}
        count, trained = sum(ids.values()), sum(ids.values()) - ids.get("prompt_ids", 0)
    made = Sample(found["origin"], count, trained)
    text, at = found["text"], 0
    for span in found["trained"]:
        start, end = (span["start"], span["end"]) if isinstance(span, dict) else span
        made.pieces += [(text[at:start], False), (text[start:end], True)]
        at = end
    made.pieces.append((text[at:], False))
    made.pieces = [piece for piece in made.pieces if piece[0]]
    return made


def histogram(lengths: list[int]) -> list[tuple[int, int, int]]:
    """First length, last length and rows of each bar. lengths: ascending."""
    if not lengths:
        return []
    size = -(-(lengths[-1] + 1) // _BARS)
    counts = [0] * (lengths[-1] // size + 1)
    for length in lengths:
        counts[length // size] += 1
    return [(index * size, (index + 1) * size - 1, count) for index, count in enumerate(counts)]
