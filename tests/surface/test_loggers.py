"""The loggers, told made-up events."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal

from tunewright import events
from tunewright_card import Card
from tunewright_conformance.doubles import FakeRun
from tunewright_console.view import View
from tunewright_jsonl import Jsonl
from tunewright_plot import Plot, earlier_curves
from tunewright_plot.draw import smoothed
from tunewright_tensorboard import TensorBoard

RECIPE = {
    "model": "tiny",
    "stages": [{"name": "sft"}],
    "adapter": {"name": "lora"},
    "data": [{"path": "data/a.jsonl"}],
}


def logged(step: int, loss: float = 1.0, stage: str = "sft", **more: float) -> events.Logged:
    return events.Logged(
        stage=stage, step=step, total_steps=10, metrics={"loss": loss, **more}, time=100.0 + step
    )


def started(first_step: int = 0, number: int = 1, stage: str = "sft") -> events.StageStarted:
    return events.StageStarted(
        stage=stage,
        number=number,
        of=2,
        total_steps=10,
        first_step=first_step,
        rows=7,
        parameters=200,
        time=100.0,
    )


def tell(logger: Any, folder: Path, *told: events.Event) -> None:
    run = FakeRun(folder)
    for event in told:
        logger.report(run=run, event=event)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- jsonl ---------------------------------------------------------------------------------------


def test_jsonl_has_a_line_for_each_logging_step_and_evaluation(tmp_path: Path) -> None:
    evaluated = events.Evaluated(stage="sft", step=2, dataset="held out", metrics={"loss": 0.5})
    tell(Jsonl(None), tmp_path, started(), logged(1, 2.0, tokens=5), evaluated)
    first, second = lines(tmp_path)  # before any end of the run: lines are flushed as they come
    assert first == {
        "stage": "sft",
        "number": 1,
        "step": 1,
        "loss": 2.0,
        "tokens": 5,
        "time": 101.0,
    }
    assert (second["eval"], second["loss"], second["step"]) == ("held out", 0.5, 2)


def test_jsonl_stays_json_when_the_loss_is_not_a_number(tmp_path: Path) -> None:
    tell(Jsonl(None), tmp_path, started(), logged(1, float("nan"), grad_norm=float("inf")))
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert lines(tmp_path)[0]["loss"] is None
    assert lines(tmp_path)[0]["grad_norm"] is None


def test_jsonl_of_a_resumed_run_equals_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    first = [started(), *map(logged, (1, 2, 3, 4))]
    tell(Jsonl(None), whole, *first, logged(5), logged(6))
    tell(Jsonl(None), parted, *first)
    with (parted / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "sft", "numb')  # killed while it wrote
    tell(Jsonl(None), parted, started(first_step=3), *map(logged, (4, 5, 6)))
    assert (whole / "metrics.jsonl").read_bytes() == (parted / "metrics.jsonl").read_bytes()


def test_jsonl_keeps_earlier_stages_when_a_later_one_of_the_same_name_begins_again(
    tmp_path: Path,
) -> None:
    tell(Jsonl(None), tmp_path, started(), logged(9), started(number=2), logged(1), logged(2))
    tell(Jsonl(None), tmp_path, started(number=2), logged(1, 5.0))
    assert [(line["number"], line["step"], line["loss"]) for line in lines(tmp_path)] == [
        (1, 9, 1.0),
        (2, 1, 5.0),
    ]


# ---- plot ----------------------------------------------------------------------------------------


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_plot_draws_at_every_save_and_for_every_stage(tmp_path: Path) -> None:
    plot, picture = Plot(None), tmp_path / "loss.png"
    evaluated = events.Evaluated(stage="sft", step=30, dataset="held out", metrics={"loss": 0.5})
    tell(plot, tmp_path, started(), *(logged(step, 1 / step) for step in range(1, 40)), evaluated)
    assert not picture.exists()
    tell(plot, tmp_path, events.Saved(stage="sft", step=39, path="x"))
    width, height = png_size(picture)
    assert width > 1000 and height > 500
    tell(
        plot,
        tmp_path,
        started(number=2),
        logged(1),
        events.StageFinished(stage="sft", steps=1, path="x"),
    )
    assert png_size(picture)[0] > 1.5 * width  # a panel beside the first
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_plot_writes_a_table_of_samples(tmp_path: Path) -> None:
    def sampled(step: int, **rewards: float) -> events.Sampled:
        text = f"<b>{step}</b>"
        return events.Sampled(
            stage="grpo", step=step, prompt="2 < 3?", completion=text, rewards=rewards
        )

    asked = [sampled(1, short=0.5, reward=0.5), sampled(2, reward=1.0)]
    tell(Plot(None), tmp_path, started(), *asked, events.RunFinished(status="failed", folder="x"))
    page = (tmp_path / "samples.html").read_text("utf-8")
    assert page.index("&lt;b&gt;2&lt;/b&gt;") < page.index("&lt;b&gt;1&lt;/b&gt;")
    assert "<th>reward</th><th>short</th>" in page
    assert "2 &lt; 3?" in page and "<b>" not in page and "<td></td>" in page


def test_plot_without_a_loss_draws_nothing(tmp_path: Path) -> None:
    tell(
        Plot(None),
        tmp_path,
        started(),
        logged(1, float("nan")),
        events.RunFinished(status="failed", folder="x"),
    )
    assert not (tmp_path / "loss.png").exists()


def test_plot_of_a_resumed_run_knows_what_came_before(tmp_path: Path) -> None:
    evaluated = events.Evaluated(stage="sft", step=2, dataset="held out", metrics={"loss": 0.5})
    tell(
        Jsonl(None), tmp_path, started(), logged(1, 3.0), logged(2, 2.0), evaluated, logged(3, 9.0)
    )
    (curve,) = earlier_curves(tmp_path / "metrics.jsonl", number=1, step=2).values()
    assert curve.points == [(1, 3.0), (2, 2.0)]
    assert curve.evals == {"held out": [(2, 0.5)]}


def test_smoothing_keeps_a_straight_line_and_flattens_noise() -> None:
    straight = tuple(float(value) for value in range(100))
    assert smoothed(straight) == pytest.approx(straight)
    noise = tuple(float(value % 2) for value in range(100))
    assert max(smoothed(noise)[10:90]) - min(smoothed(noise)[10:90]) < 0.5


# ---- tensorboard ---------------------------------------------------------------------------------


def test_tensorboard_reads_back_what_was_written_and_forgets_what_a_resumed_run_does_again(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evaluated = events.Evaluated(stage="sft", step=2, dataset="held out", metrics={"loss": 0.5})
    finished = events.RunFinished(status="interrupted", folder="x")
    tell(
        TensorBoard(None),
        tmp_path,
        started(),
        logged(1, 4.0),
        logged(2, 3.0),
        evaluated,
        logged(3, 9.0),
        finished,
    )
    done = events.StageFinished(stage="sft", steps=4, path="x")
    tell(TensorBoard(None), tmp_path, started(first_step=2), logged(3, 2.0), logged(4, 1.0), done)
    read = EventAccumulator(str(tmp_path / "logs" / "tensorboard" / "1-sft"))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars("loss")] == [
        (1, 4.0),
        (2, 3.0),
        (3, 2.0),
        (4, 1.0),
    ]
    assert [point.value for point in read.Scalars("eval/held out/loss")] == [0.5]
    assert read.Scalars("loss")[0].wall_time == 101.0


# ---- console -------------------------------------------------------------------------------------

RUN = [
    events.RunStarted(folder="runs/a b", recipe=RECIPE, versions={}, time=100.0),
    events.StepStarted(step="load_model", detail="tiny"),
    events.Notice(message="evil \x1b]0;title\x07 [red]note[/red]", level="warning"),
    started(),
    logged(4, 2.5, learning_rate=1e-4, tokens_per_second=1234.4),
    events.Evaluated(stage="sft", step=4, dataset="held out", metrics={"loss": 1.25}),
    events.Saved(stage="sft", step=4, path="checkpoints/step-4"),
    events.StageFinished(stage="sft", steps=10, path="model"),
]


def shown(*told: events.Event, terminal: bool = False) -> str:
    out = io.StringIO()
    view = View(Terminal(file=out, force_terminal=terminal, width=100))
    for event in told:
        view.show(event)
    return out.getvalue()


def test_console_in_a_pipe_prints_plain_lines() -> None:
    text = shown(*RUN, events.RunFinished(status="completed", folder="runs/a b", time=165.0))
    assert "\x1b" not in text and "\x07" not in text
    assert "Warning: evil ␛]0;title␇ [red]note[/red]" in text.splitlines()
    assert "  step 4/10  loss 2.5000  lr 1.0e-04  1,234 tokens/s  ETA 0:00:06" in text.splitlines()
    for expected in (
        "tiny",
        "sft, lora",
        "data/a.jsonl",
        "held out  loss 1.25",
        "checkpoints/step-4",
        "0:01:05",
    ):
        assert expected in text
    assert "tunewright chat 'runs/a b'" in text


def test_console_of_an_interrupted_run_offers_no_chat() -> None:
    text = shown(*RUN, events.RunFinished(status="interrupted", folder="runs/a", time=165.0))
    assert "Interrupted after" in text
    assert "tunewright chat" not in text


def test_console_offers_no_chat_with_a_model_that_gives_numbers() -> None:
    begun = events.StageStarted(stage="reward", number=1, of=1, total_steps=1)
    finished = events.RunFinished(status="completed", folder="runs/a", time=165.0)
    assert "tunewright chat" not in shown(RUN[0], begun, finished)


def test_console_in_a_terminal_shows_a_bar_and_puts_the_cursor_back() -> None:
    text = shown(*RUN, terminal=True)
    assert "\x1b]0;title" not in text and "\x07" not in text
    bar = next(line for line in re.split(r"[\r\n]", text) if "4/10" in line)
    assert "loss 2.5000" in bar and "━" in bar
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # shown again after it was hidden
    assert text.rindex("\x1b[?25h") < text.index("sft finished")


def test_console_stops_the_bar_when_the_run_fails_in_a_stage() -> None:
    text = shown(
        *RUN[:-1], events.RunFinished(status="failed", folder="x", error="boom"), terminal=True
    )
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Failed" in text


# ---- card ----------------------------------------------------------------------------------------


def test_card_says_what_was_warned_of(tmp_path: Path) -> None:
    recipe = RECIPE | {"loggers": [{"name": "plot"}]}
    begun = events.RunStarted(folder="out", recipe=recipe, versions={"tunewright": "1"})
    ended = (
        events.StageFinished(stage="sft", steps=1, path="model", metrics={"loss": 2.0}),
        events.RunFinished(status="completed", folder="out"),
    )
    tell(Card(None), tmp_path, begun, started(), *ended)
    quiet = (tmp_path / "README.md").read_text()
    assert "- sft: 1 step over 7 rows. loss 2\n" in quiet and "Warnings" not in quiet
    alike = events.Notice(message="all rewards\nare alike", level="warning")
    told = (alike, events.Notice(message="7 rows"), alike)
    tell(Card(None), tmp_path, begun, started(), *told, *ended)
    text = (tmp_path / "README.md").read_text()
    assert "\n## Warnings\n\n- all rewards are alike\n" in text
    assert text.count("alike") == 1 and "7 rows\n" not in text
