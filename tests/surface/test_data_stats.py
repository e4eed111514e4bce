"""`tunewright data stats` on a recipe."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tunewright import RecipeError
from tunewright_data import app


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"What is {n % 4} and \x1b[2J{n % 4}?", "output": "Four."} for n in range(5)
    ]
    rows.append({"instruction": "word " * 300, "output": "too long"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: tiny\nfamily: qwen\ntemplate: chatml\ndata: [{path: a.jsonl}]\nstage: sft\n"
        f"training: {{max_length: 256}}\noutput: {tmp_path / 'run'}\n"
    )
    return path


def test_tables_and_picture(recipe: Path) -> None:
    parent = typer.Typer()
    parent.add_typer(app, name="data")
    picture = recipe.parent / "stats.png"
    done = CliRunner().invoke(
        parent, ["data", "stats", str(recipe), "--png", str(picture)], catch_exceptions=False
    )
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for expected in (
        "records read 6",
        "rows 5",
        "rows that repeat another 1 20.0 %",
        "user 6 50.0 %",
        "assistant 6 50.0 %",
        "1 6 100.0 %",
        "longer than max_length (256 tokens) 1 16.7 %",
        "Tokens of a row",
    ):
        assert expected in lines, done.stdout
    assert "\x1b" not in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (recipe.parent / "run").exists()


def test_json(recipe: Path) -> None:
    parent = typer.Typer()
    parent.add_typer(app, name="data")

    def printed(*arguments: str) -> dict:
        done = CliRunner().invoke(parent, ["data", *arguments, "--json"], catch_exceptions=False)
        return json.loads(done.stdout)

    stats = printed("stats", str(recipe))
    assert (stats["rows_read"], stats["duplicates"], stats["roles"]["user"]) == (6, 1, 6)
    assert len(stats["lengths"]) == 5
    preview = printed("preview", str(recipe), "--count", "1")
    (sample,) = preview["samples"]
    assert len(sample["columns"]["input_ids"]) == preview["lengths"][0]
    assert "What is 0" in sample["text"]


def test_a_picture_in_no_folder_is_one_line_at_once() -> None:
    found = CliRunner().invoke(app, ["stats", "gone.yaml", "--png", "gone/a.png"])
    assert isinstance(found.exception, RecipeError)
    assert "--png: there is no folder for gone/a.png (make the folder" in str(found.exception)
