"""`tunewright recipe new`: the recipe that it writes is good, says what the data is, and trains."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from tunewright import RecipeError, check, registry, run
from tunewright.cli import build
from tunewright_new.look import stage_for
from tunewright_new.recipe import Answers, ask


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with data/support.jsonl."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"instruction": f"What is {n} and {n}?", "output": f"It is {2 * n}. " * (1 + n)}
        for n in range(20)
    ]
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/support.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def new(*arguments: str, said: str = "") -> Result:
    result: Result = CliRunner().invoke(
        build(), ["recipe", "new", *arguments], input=said, catch_exceptions=False
    )
    return result


GIVEN = ["--model", "tiny", "--family", "qwen", "--data", "data/support.jsonl"]


def test_the_verb_stands_among_the_kernels_own() -> None:
    group = get_command(build()).commands["recipe"]
    assert {"check", "show", "schema", "new"} == group.commands.keys()


def test_without_a_terminal_defaults_are_taken(data: Path) -> None:
    said = new(*GIVEN, "--yes", "recipes/first.yaml").stdout
    assert "20 records, format alpaca" in said
    recipe = check.resolve(Path("recipes/first.yaml")).recipe
    assert (recipe.model, recipe.stages[0].name, recipe.adapter.name) == ("tiny", "sft", "lora")
    assert recipe.data == [{"path": "../data/support.jsonl"}]
    assert recipe.output == "runs/first"
    assert [logger.name for logger in recipe.loggers] == registry.shipped_table()["defaults"][
        "loggers"
    ]
    text = Path("recipes/first.yaml").read_text()
    assert "20 records, format alpaca" in text
    assert "The longest example read has " in text
    assert recipe.training.max_length == 256


def test_questions_are_asked_and_wrong_answers_asked_again(data: Path) -> None:
    answers = [
        "tiny",
        "data/support.jsonl",
        "sftt",
        "sft",
        "full",
        "qwen",
        "tensorbord",
        "tensorboard",
        "runs/mine",
    ]
    result = new(said="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert "expected one of" in result.output
    recipe = check.resolve(Path("recipe.yaml")).recipe
    assert (recipe.adapter.name, recipe.output) == ("full", "runs/mine")
    assert recipe.loggers[-1].name == "tensorboard"
    assert recipe.training.learning_rate == pytest.approx(2e-5)


def test_editors_find_the_schema_beside_it(data: Path) -> None:
    new(*GIVEN, "--yes")
    first = Path("recipe.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=recipe.schema.json"
    schema = json.loads(Path("recipe.schema.json").read_text())
    assert schema["title"] == "Recipe"
    assert yaml.safe_load(Path("recipe.yaml").read_text()).keys() <= schema["properties"].keys()
    new(*GIVEN, "--yes", "second.yaml")  # an older schema is no obstacle


def test_nothing_is_overwritten(data: Path) -> None:
    Path("recipe.yaml").write_text("mine")
    with pytest.raises(RecipeError, match="is there already"):
        new(*GIVEN, "--yes")
    Path("recipe.schema.json").write_text("[]")
    with pytest.raises(RecipeError, match="stands in the way"):
        new(*GIVEN, "--yes", "other.yaml")
    assert not Path("other.yaml").exists()
    assert (Path("recipe.yaml").read_text(), Path("recipe.schema.json").read_text()) == (
        "mine",
        "[]",
    )


def test_preferences_are_learned_in_smaller_steps(data: Path) -> None:
    pairs = [
        {"prompt": f"What is {n}?", "chosen": "A number.", "rejected": "A word."} for n in range(3)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    new(*GIVEN, "--stage", "dpo", "--yes")
    recipe = check.resolve(Path("recipe.yaml")).recipe
    assert recipe.training.learning_rate == pytest.approx(2e-5)


def test_a_pattern_is_no_name_of_a_folder() -> None:
    found = ask(Answers("tiny", "qwen", data="data/*.jsonl"), Path("recipe.yaml"), None)
    assert found.output == "runs/run"


def test_what_has_no_default_is_needed() -> None:
    for given, missing in (
        (Answers(), "--model"),
        (Answers("tiny"), "--data"),
        (Answers("tiny", None, None, "a"), "--family"),
    ):
        with pytest.raises(RecipeError, match=f"{missing}: is needed"):
            ask(given, Path("nowhere.yaml"), None)


def test_a_model_that_is_not_to_be_had_tells_no_lengths(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = ["--model", "nobody/nothing", *GIVEN[2:]]
    assert "format alpaca" in new(*given, "--yes").stdout
    text = Path("recipe.yaml").read_text()
    assert "shows the lengths of yours" in text
    assert "max_length: 2048" in text


def test_data_that_does_not_fit_the_stage_is_reported_before_anything_is_written(
    data: Path,
) -> None:
    data.write_text("{}\n")
    with pytest.raises(RecipeError):
        new(*GIVEN, "--yes")
    assert not Path("recipe.yaml").exists()


def test_an_option_without_a_default_is_asked_for(data: Path) -> None:
    data.write_text(PROMPTS)
    unknown, none, right = "[{name: lenght}]", "length", "[{name: length, target: 7}]"
    answers = [
        "tiny",
        "data/support.jsonl",
        "grpo",
        unknown,
        none,
        right,
        "full",
        "qwen",
        "none",
        "runs/mine",
    ]
    result = new(said="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert "Error: no installed plugin gives the reward 'lenght'" in result.output
    assert "Error: Input should be a valid list" in result.output
    recipe = check.resolve(Path("recipe.yaml")).recipe
    assert recipe.stages[0].options["rewards"] == [{"name": "length", "target": 7}]
    assert "\n# rewards: Reward plugins" in (text := Path("recipe.yaml").read_text())
    assert "Example values" not in text


PROMPTS = '{"prompt": "What is your name?"}\n{"prompt": "Say goodbye."}\n' * 8
ROWS = {
    "messages": '{"instruction": "Say hello.", "output": "Hello."}\n' * 16,
    "text": '{"text": "A wren is a small bird that sings loudly."}\n' * 16,
    "preference": '{"prompt": "Say hello.", "chosen": "Arr!", "rejected": "Hello."}\n' * 16,
    "unpaired": '{"prompt": "Hi", "completion": "Arr!", "label": true}\n' * 8
    + '{"prompt": "Hi", "completion": "Hello.", "label": false}\n' * 8,
    "prompts": PROMPTS,
    "labelled": '{"sentence": "A wren sings.", "label": 0}\n' * 16,
    "stepwise": '{"prompt": "1 + 1?", "completions": ["It is 2."], "labels": [1]}\n' * 16,
    "retrieval": '{"query": "Sings?", "positive": "The wren.", "negative": "The owl."}\n' * 16,
    "ranked": '{"prompt": "Say hello.", "chosen": "Arr!", "rejected": ["Hello.", "Hi."]}\n' * 16,
}


@pytest.mark.parametrize(
    ("rows", "stage"),
    [
        ("messages", "sft"),
        ("text", "pretrain"),
        ("preference", "dpo"),
        ("unpaired", "kto"),
        ("prompts", "grpo"),
        ("retrieval", "embed"),
        ("stepwise", "prm"),
    ],
)
def test_the_stage_that_fits_the_data_is_proposed(data: Path, rows: str, stage: str) -> None:
    data.write_text(ROWS[rows])
    result = new(*GIVEN, "--yes")
    assert check.resolve(Path("recipe.yaml")).stages[0].choice.entry.name == stage
    assert f"format {rows if rows != 'messages' else 'alpaca'} (detected)" in result.stdout
    text = Path("recipe.yaml").read_text()
    assert ("\n# Example values: replace them.\n" in text) == (stage == "grpo")


@pytest.mark.parametrize("content", ["{}\n", "{broken", "", '{"strange": 1}\n'])
def test_data_that_tells_no_stage_proposes_sft(data: Path, content: str) -> None:
    data.write_text(content)
    assert stage_for(str(data)) == stage_for("gone.jsonl") == stage_for("s3://a/b.jsonl") == "sft"


def test_a_stage_that_does_not_fit_is_told_which_do(data: Path) -> None:
    data.write_text(ROWS["preference"])
    with pytest.raises(RecipeError, match="stages that train on preference or ranked: cpo, dp"):
        new(*GIVEN, "--stage", "sft", "--yes")
    assert not Path("recipe.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [entry.name for entry in registry.entries("stage")])
def test_every_stage_passes_a_smoke_run(data: Path, stage: str) -> None:
    data.write_text(ROWS[registry.load(registry.find("stage", stage)).rows])
    new(*GIVEN, "--stage", stage, "--yes")
    resolved = check.resolve(Path("recipe.yaml"))
    result = run.train(run.smoke(resolved), overwrite=True, limit=32)
    assert result.steps >= 3  # a rollout is trained to its end
    assert Path("runs/support-smoke/run.json").is_file()
