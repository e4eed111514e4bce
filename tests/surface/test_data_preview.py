"""`tunewright data preview`: what it prints, and that it works on a recipe."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tunewright import RecipeError
from tunewright.types import Span
from tunewright_data import app
from tunewright_data.preview import histogram, show


def preview(**more: Any) -> Any:
    sample = SimpleNamespace(
        origin="a.jsonl:7",
        text="ask\x1b[2J answer",
        trained=[Span(8, 14, weight=2.0)],
        input_ids=[1, 2, 3],
        labels=[-100, 2, 3],
    )
    given = {
        "samples": [sample],
        "lengths": [3, 40, 5],
        "trained_tokens": 12,
        "rows_read": 5,
        "dropped": {"longer than max_length (64 tokens)": 2},
        "notes": ["a.jsonl: format alpaca, detected"],
    }
    return SimpleNamespace(**{**given, **more})


def test_everything_that_matters_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show(preview())
    text = capsys.readouterr().out
    for expected in (
        "a.jsonl:7: 3 tokens, 2 of them trained",
        "ask␛[2J ⟦answer⟧(loss weight 2)",
        "5 rows read, 2 dropped",
        "2: longer than max_length (64 tokens)",
        "a.jsonl: format alpaca, detected",
        "Tokens of a row: 3 to 40, median 5",
        "12 of 48 tokens are trained (25.0 %)",
    ):
        assert expected in text
    assert "\x1b" not in text


def test_no_rows_left_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    show(preview(samples=[], lengths=[], trained_tokens=0, dropped={"cannot be used": 5}))
    assert "5: cannot be used" in capsys.readouterr().out


def test_bars_are_as_long_as_their_counts() -> None:
    bars = histogram([1, *[55] * 40, *[99] * 4])
    assert len(bars) == 10
    assert [bar.count("█") for bar in bars] == [1, 0, 0, 0, 0, 40, 0, 0, 0, 4]
    assert [bar.split()[-1] for bar in bars] == ["1", "0", "0", "0", "0", "40", "0", "0", "0", "4"]
    assert [bar.split()[0] for bar in bars[:3]] == ["0", "10", "20"]
    assert sum(int(bar.split()[-1]) for bar in histogram([3])) == 1


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [{"instruction": f"What is {n} and {n}?", "output": f"It is {2 * n}."} for n in range(5)]
    rows.append({"instruction": "word " * 300, "output": "too long"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: tiny\nfamily: qwen\ntemplate: chatml\ndata: [{path: a.jsonl}]\nstage: sft\n"
        f"training: {{max_length: 256}}\noutput: {tmp_path / 'run'}\n"
    )
    return path


def call(*arguments: str) -> str:
    parent = typer.Typer()
    parent.add_typer(app, name="data")
    return (
        CliRunner().invoke(parent, ["data", "preview", *arguments], catch_exceptions=False).stdout
    )


def test_a_recipe_is_previewed_without_a_run(recipe: Path) -> None:
    text = call(str(recipe), "-n", "2")
    assert "⟦It is 0.<|im_end|>" in text
    assert "⟦It is 2.<|im_end|>" in text
    assert "It is 4." not in text
    assert "6 rows read, 1 dropped" in text
    assert "alpaca" in text
    assert not (recipe.parent / "run").exists()


def test_overrides_and_limit_count(recipe: Path) -> None:
    assert "2 rows read, 2 dropped" in call(str(recipe), "training.max_length=4", "--limit", "2")


def test_a_stage_that_is_not_there_is_an_error(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="found 2, the recipe has 1"):
        call(str(recipe), "--stage", "2")
