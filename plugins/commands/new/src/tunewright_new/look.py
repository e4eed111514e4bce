"""What a recipe's data is: its format, how many records, how long."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RunError

if TYPE_CHECKING:
    from tunewright_new.recipe import Answers

LIMIT = 1000  # records that are looked at


@dataclass
class Look:
    records: int
    dropped: dict[str, int]  # reason → records
    notes: list[str]  # what the dataset says of itself, such as the format
    longest: int | None  # tokens of a row; None: it was another tokenizer, or rows are cut to size

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        dropped = [
            f"{count:,} of {self.records:,} not used: {reason}"
            for reason, count in self.dropped.items()
        ]
        some = [f"only the first {LIMIT:,} records were looked at"] if self.records >= LIMIT else []
        return [*self.notes, *dropped, *some]


def look(answers: "Answers", path: str, root: Path) -> Look:
    """Read, render and tokenise the first records, from `root`, with the model's own tokenizer;
    where that is not to be had, with the tiny twin's, which tells no lengths. Raises RecipeError
    and RowError.
    """
    try:
        return _look(answers, answers.model, path, root)
    except RunError:
        found = _look(answers, "tiny", path, root)
        found.longest = None
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
    whole = run.stage(0).rows != "text"  # documents are cut into rows of max_length
    longest = max(shown.lengths) if whole and shown.lengths else None
    return Look(shown.rows_read, shown.dropped, shown.notes, longest)
