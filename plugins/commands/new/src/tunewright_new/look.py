"""Summary of a recipe's data: format, number of records, lengths."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RunError, TunewrightError, registry

if TYPE_CHECKING:
    from tunewright_new.recipe import Answers

LIMIT = 1000  # records that are read
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


@dataclass
class Look:
    records: int
    dropped: dict[str, int]  # reason → records
    notes: list[str]  # notes of the dataset, such as the format
    # tokens of the longest example; None: unknown (another tokenizer, or examples are cut to size)
    longest: int | None

    def lines(self) -> list[str]:
        """Lines to print."""
        dropped = [
            f"{count:,} of {self.records:,} not used: {reason}"
            for reason, count in self.dropped.items()
        ]
        some = [f"only the first {LIMIT:,} records were looked at"] if self.records >= LIMIT else []
        return [*self.notes, *dropped, *some]


def look(answers: "Answers", path: str, root: Path) -> Look:
    """Read, render and tokenise the first records with the model's tokenizer. If that is not
    available, use the tiny twin's, which gives no lengths. `root`: folder from which paths start.
    Raises RecipeError and RowError."""
    try:
        return _look(answers, answers.model, path, root)
    except RunError:
        found = _look(answers, "tiny", path, root)
        found.longest = None
        return found


def stage_for(data: str) -> str:
    """The stage that fits the first records of the data; sft where they do not tell, or cannot be
    read at once."""
    records = _first_records(data)
    counts: Counter[str] = Counter()
    for entry in registry.entries("format"):
        with suppress(TunewrightError):  # a broken one knows no record
            plugin = registry.load(entry)
            counts[plugin.rows[0]] += sum(plugin.matches(record) for record in records)
    rows, count = max(counts.items(), key=lambda found: found[1], default=("", 0))
    return _USUAL.get(rows, "sft") if count else "sft"


def _first_records(data: str) -> list[Any]:
    name: str = registry.shipped_table()["defaults"]["dataset"]
    plugin = registry.load(registry.find("dataset", name))
    try:
        entry = plugin.Entry.model_validate({"path": data})
    except ValueError:
        return []
    found: list[Any] = plugin(plugin.Options(), name).first_records(entry, Path.cwd())
    return found


def _look(answers: "Answers", model: str | None, path: str, root: Path) -> Look:
    from tunewright.check import resolve
    from tunewright.run import Run

    recipe: dict[str, Any] = {
        "model": model,
        "family": answers.family,
        "data": [{"path": path}],
        "stage": answers.section("stage"),
        "training": {"max_length": 10**6},
        "output": answers.output,
        "data_root": str(root),
        "loggers": [],
    }
    run = Run(resolve(recipe | ({"template": answers.template} if answers.template else {})))
    shown = run.plugin("dataset").preview(
        run, run.data_request(run.load(weights="none"), limit=LIMIT), 0
    )
    whole = run.stage(0).rows != "text"  # documents are cut into sequences of max_length
    longest = max(shown.lengths) if whole and shown.lengths else None
    return Look(shown.rows_read, shown.dropped, shown.notes, longest)
