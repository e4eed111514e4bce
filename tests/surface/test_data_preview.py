"""`tunewright data preview`: what it prints, and that it works on a recipe."""

import json
from ast import literal_eval
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


def test_no_rows_left_is_reported_too(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_tokens_are_printed_with_what_is_trained(recipe: Path) -> None:
    text = call(str(recipe), "-n", "1", "--tokens")
    lines = text.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("     0 ")))
    count = int(text.partition(" tokens, ")[0].rpartition(" ")[2])
    found = [line.split(maxsplit=2) for line in lines[start : start + count]]
    assert [int(place) for place, _, _ in found] == list(range(count))
    assert found[0][2] == "'<|im_start|>'"
    trained = [text for _, _, text in found if text.startswith("⟦")]
    assert len(trained) == int(text.partition(" of them trained")[0].rpartition(" ")[2])
    assert trained[-1] == "⟦'<|im_end|>'⟧"
    assert "".join(literal_eval(text[1:-1]) for text in trained) == "It is 0.<|im_end|>"
    assert len({number for _, number, text in found if text.strip("⟦⟧") == "'<|im_end|>'"}) == 1
    assert "It is 0." not in "\n".join(lines[start:])
    assert lines[start - 2].endswith("⟧") and "     0 " not in call(str(recipe), "-n", "1")


def test_tokens_of_answers_have_a_list_each(recipe: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (recipe.parent / "a.jsonl").write_text(json.dumps(row) + "\n")
    lines = call(str(recipe), "--tokens", "stage=dpo").splitlines()
    names = [line for line in lines if line in ("prompt_ids:", "chosen_ids:", "rejected_ids:")]
    assert names == ["prompt_ids:", "chosen_ids:", "rejected_ids:"]
    assert lines[lines.index("chosen_ids:") + 1].endswith("⟦'b'⟧")
    assert lines[lines.index("rejected_ids:") + 1].endswith("⟦'c'⟧")
    assert "⟦" not in lines[lines.index("prompt_ids:") + 1]


def test_weights_and_parts_of_characters_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = {1: "a", 2: "\x1b[2J", 3: "\ufffd"}
    tokenizer = SimpleNamespace(
        decode=lambda ids: words[ids[0]], convert_ids_to_tokens=lambda token: f"<{token}>"
    )
    sample = preview().samples[0]
    sample.columns = {
        "input_ids": [1, 2, 3],
        "labels": [-100, 2, 3],
        "loss_weights": [0.0, 0.5, 1.0],
    }
    show(preview(samples=[sample]), tokenizer)
    text = capsys.readouterr().out
    assert "     0  1  'a'\n" in text
    assert "     1  2  ⟦'\\x1b[2J'⟧ (loss weight 0.5)\n" in text
    assert "     2  3  ⟦'<3>'⟧\n" in text


def test_overrides_and_limit_count(recipe: Path) -> None:
    assert "2 rows read, 2 dropped" in call(str(recipe), "training.max_length=4", "--limit", "2")


def test_a_stage_that_is_not_there_is_an_error(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="found 2, the recipe has 1"):
        call(str(recipe), "--stage", "2")
