"""Tests specific to this logger. `tunewright plugins check` tests what is common to the kind."""

from pathlib import Path

from tunewright_csv import Csv

from tunewright.events import Logged
from tunewright_conformance.doubles import FakeRun


def report(logger: Csv, folder: Path, step: int, **metrics: float) -> None:
    logger.report(
        FakeRun(folder),
        Logged(stage="sft", step=step, total_steps=3, metrics=metrics),
    )


def test_a_resumed_run_goes_on_with_the_columns_of_the_first(tmp_path: Path) -> None:
    first, again = Csv(Csv.Options(delimiter=";")), Csv(Csv.Options(delimiter=";"))
    report(first, tmp_path, 1, loss=2.5)
    report(first, tmp_path, 2, loss=2.0, extra=1.0)
    report(again, tmp_path, 3, extra=1.0, loss=1.5)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "stage;step;loss",
        "sft;1;2.5",
        "sft;2;2.0",
        "sft;3;1.5",
    ]
