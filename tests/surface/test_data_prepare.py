"""`tunewright data prepare`: what training then finds, in the cache or in a folder that was
copied."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunewright import RecipeError, check
from tunewright.run import Run
from tunewright_data import app

RECIPE = """\
model: tiny
family: {name: qwen, tiny_hidden_size: 64, tiny_layers: 1}
template: chatml
stages:
  - {name: sft, data: [{path: a.jsonl}]}
  - {name: sft, data: [{path: b.jsonl}], training: {max_length: 100}}
training: {max_length: 128}
output: run
"""
ROW = '{"instruction": "say %s", "output": "%s"}\n'


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    for name, word, rows in (("a", "x", 2), ("b", "y", 3)):
        (tmp_path / f"{name}.jsonl").write_text(ROW % (word, word) * rows)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_all_stages_are_prepared_and_found(recipe: Path) -> None:
    printed = CliRunner().invoke(app, ["prepare", str(recipe)], catch_exceptions=False).output
    assert "stage 1, sft: 2 rows of 2 records" in printed
    assert "stage 2, sft: 3 rows of 3 records" in printed
    assert len(list((recipe.parent / "cache" / "data").glob("*/rows.arrow"))) == 2
    again = CliRunner().invoke(app, ["prepare", str(recipe)], catch_exceptions=False).output
    assert again.count("from the cache") == 2


def test_another_machine_trains_from_a_copy(recipe: Path, tmp_path: Path) -> None:
    CliRunner().invoke(
        app, ["prepare", str(recipe), "--to", str(tmp_path / "made")], catch_exceptions=False
    )
    assert not (tmp_path / "cache").exists()
    other = tmp_path / "other machine"
    shutil.copytree(tmp_path / "made", other / "made")
    shutil.copy(recipe, other)
    run = Run(check.resolve(other / "recipe.yaml", ["dataset.prepared=made"]))
    loaded = run.load(weights="none")
    found = [
        run.call("dataset", "build_dataset", run.data_request(loaded, number)) for number in (0, 1)
    ]
    assert [len(data.train) for data in found] == [2, 3]


def test_two_hosts_prepare_half_each(recipe: Path, tmp_path: Path) -> None:
    both = "data=[{path: a.jsonl}, {path: b.jsonl}]"
    for shard in ("0/2", "1/2"):
        words = ["prepare", str(recipe), both, "stages=[sft]", "--to", str(tmp_path / shard[0])]
        printed = CliRunner().invoke(app, [*words, "--shard", shard], catch_exceptions=False).output
        assert f"stage 1, sft: {2 + int(shard[0])} rows" in printed
    shutil.copytree(tmp_path / "1", tmp_path / "0", dirs_exist_ok=True)
    overrides = [both, "stages=[sft]", f"dataset.prepared={tmp_path / '0'}"]
    run = Run(check.resolve(recipe, overrides))
    request = run.data_request(run.load(weights="none"))
    assert len(run.call("dataset", "build_dataset", request).train) == 5


def test_more_hosts_than_sources(recipe: Path) -> None:
    words = ["prepare", str(recipe), "--shard", "1/3"]
    printed = CliRunner().invoke(app, words, catch_exceptions=False).output
    assert "stage 1, sft: no source in this shard" in printed


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "1/0", "a/b"])
def test_shards_that_are_none(recipe: Path, shard: str) -> None:
    with pytest.raises(RecipeError, match="expected I/N with I from 0 to N-1"):
        CliRunner().invoke(app, ["prepare", str(recipe), "--shard", shard], catch_exceptions=False)
