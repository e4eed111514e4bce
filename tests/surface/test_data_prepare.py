"""`tunewright data prepare`: what training then finds, in the cache or in a folder that was
copied."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunewright import RecipeError, check
from tunewright.run import Run
from tunewright_data import app
from tunewright_dataset_chat import source_parts

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


@pytest.fixture
def files(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides: a source of three files, which are prepared one by one."""
    monkeypatch.setattr(source_parts, "LARGE", 1)
    (recipe.parent / "many").mkdir()
    for number in range(3):
        rows = [ROW % (f"x{number}{row}", "y") for row in range(number + 2)]
        (recipe.parent / "many" / f"{number}.jsonl").write_text("".join(rows))
    (recipe.parent / "many" / "empty.jsonl").touch()
    return ["data=[{path: many, weight: 2}, {path: a.jsonl}]", "stages=[sft]"]


def built(recipe: Path, overrides: list[str]) -> tuple[list, list]:
    """Rows of a run, and those of its first epoch."""
    run = Run(check.resolve(recipe, overrides))
    data = run.call("dataset", "build_dataset", run.data_request(run.load(weights="none")))
    return data.train["input_ids"], data.order(0).tolist()


def test_hosts_prepare_files_of_one_source(
    recipe: Path, tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(4):
        words = ["prepare", str(recipe), *files, "--to", str(tmp_path / f"part{shard}")]
        words += ["--shard", f"{shard}/4"]
        printed = CliRunner().invoke(app, words, catch_exceptions=False).output
        assert f"stage 1, sft: {(2, 3, 4, 2)[shard]} rows" in printed
    for shard in range(4):
        shutil.copytree(tmp_path / f"part{shard}", tmp_path / "all", dirs_exist_ok=True)
    shutil.move(recipe.parent / "many", recipe.parent / "moved")
    found = built(recipe, [*files, f"dataset.prepared={tmp_path / 'all'}"])
    shutil.move(recipe.parent / "moved", recipe.parent / "many")
    assert found == built(recipe, files)
    monkeypatch.setattr(source_parts, "LARGE", 2**30)
    assert found == built(recipe, files)


def test_a_part_that_no_host_has_prepared(recipe: Path, tmp_path: Path, files: list[str]) -> None:
    words = ["prepare", str(recipe), *files, "--to", str(tmp_path / "made"), "--shard", "0/2"]
    CliRunner().invoke(app, words, catch_exceptions=False)
    with pytest.raises(RecipeError, match=r"holds 2 of 3 parts of data.0, not number 2"):
        built(recipe, [*files, f"dataset.prepared={tmp_path / 'made'}"])


def test_a_limit_counts_over_all_files(recipe: Path, files: list[str]) -> None:
    limited = ["data=[{path: many, limit: 3, weight: 2}]", *files[1:]]
    assert len(built(recipe, limited)[0]) == 3


def test_more_hosts_than_sources(recipe: Path) -> None:
    words = ["prepare", str(recipe), "--shard", "1/3"]
    printed = CliRunner().invoke(app, words, catch_exceptions=False).output
    assert "stage 1, sft: no source in this shard" in printed


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "1/0", "a/b"])
def test_shards_that_are_none(recipe: Path, shard: str) -> None:
    with pytest.raises(RecipeError, match="expected I/N with I from 0 to N-1"):
        CliRunner().invoke(app, ["prepare", str(recipe), "--shard", shard], catch_exceptions=False)
