"""Valid recipes, and the one-line errors of invalid ones."""

import time

import pytest
import yaml

from tunewright import check, yamlio
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe, mask

GOOD = """\
model: tiny
family: mine
template: mine
adapter: {name: mine, rank: 4}
dataset: mine
optimizer: mine
engine: mine
loggers: [mine]
data:
  - {path: a.jsonl}
stage: {name: mine, packing: true}
training: {learning_rate: 2e-4, epochs: 1}
output: runs/a
"""
PLUGINS = """
class Mine(Plugin):
    class Options(PluginOptions):
        rank: int = 8
        packing: bool = False
    class Entry(PluginOptions):
        path: str

class MineStage(Stage):
    rows = "messages"
    class Options(PluginOptions):
        packing: bool = False
"""
KINDS = ("family", "template", "adapter", "dataset", "optimizer", "engine", "logger")


@pytest.fixture
def recipe(tmp_path, install):
    install(
        "tw-mine",
        {kind: {"mine": "tw_mine:Mine"} for kind in KINDS}
        | {"stage": {"mine": "tw_mine:MineStage"}},
        PLUGINS,
    )

    def write(text: str = GOOD, *overrides: str) -> Recipe:
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return check.resolve(path, list(overrides)).recipe

    return write


def said(recipe, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as error:
        recipe(text, *overrides)
    return str(error.value)


def test_a_good_recipe_is_resolved_with_every_default(recipe):
    found = recipe()
    assert found.training.learning_rate == 2e-4
    assert found.adapter.options == {"rank": 4, "packing": False}
    assert found.stages[0].options == {"packing": True}
    assert found.as_dict()["training"]["max_grad_norm"] == 1.0


def test_the_resolved_recipe_reads_back_as_itself(recipe, tmp_path):
    first = recipe()
    again = recipe(yaml.safe_dump(first.as_dict()))
    assert again.as_dict() == first.as_dict()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "epochs: 1",
            "epoch: 1",
            "r.yaml:12: training.epoch: unknown key (did you mean 'epochs'?)",
        ),
        ("training:", "trainin:", "r.yaml:12: trainin: unknown key (did you mean 'training'?)"),
        ("rank: 4", "rnk: 4", "r.yaml:4: adapter.rnk: unknown key (did you mean 'rank'?)"),
        ("rank: 4", "rank: big", "r.yaml:4: adapter.rank: found 'big'"),
        (
            "packing: true",
            "pack: true",
            "r.yaml:11: stage.pack: unknown key (did you mean 'packing'?)",
        ),
        (
            "path: a.jsonl",
            "pth: a.jsonl",
            "r.yaml:10: data.0.pth: unknown key (did you mean 'path'?)",
        ),
        (
            "epochs: 1",
            "epochs: many",
            "r.yaml:12: training.epochs: found 'many', expected a valid number",
        ),
        (
            "epochs: 1",
            "epochs: -1",
            "r.yaml:12: training.epochs: found -1, expected greater than 0",
        ),
        ("model: tiny", "x: 1", "r.yaml: model: is missing"),
        (
            "optimizer: mine",
            "optimizer: mne",
            "r.yaml:6: optimizer: no installed plugin gives the optimizer 'mne'",
        ),
        ("  - {path: a.jsonl}", "  []", "r.yaml:9: data: is empty, expected at least one source"),
        ("engine: mine", "engine: mine\nengine: mine", "r.yaml:8: engine stands there twice"),
        ("epochs: 1", "epochs: [", "r.yaml:12: is not safe, valid YAML"),
        ("stage:", "stages: []\nstage:", "has both stage and stages; one is enough"),
        (
            "epochs: 1",
            "batching: random, tokens_per_batch: 9",
            "tokens_per_batch goes with batching: token_budget",
        ),
        (
            "epochs: 1",
            "rows_per_step: 9",
            "rows_per_step goes with batching: random or length_grouped",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_line_field_and_remedy(recipe, before, after, line):
    assert before in GOOD
    text = said(recipe, GOOD.replace(before, after))
    assert line in text
    assert len([part for part in text.splitlines() if line in part]) == 1


def test_several_mistakes_are_a_line_each(recipe):
    text = said(recipe, GOOD.replace("learning_rate: 2e-4, epochs: 1", "lr: 1, epochs: x"))
    assert len(text.splitlines()) == 2


def test_overrides(recipe):
    found = recipe(
        GOOD,
        "training.epochs=3",
        "adapter.rank=32",
        "stage.packing=false",
        "data.0.path=b.jsonl",
        "optimizer.rank=2",
    )
    assert found.training.epochs == 3
    assert found.adapter.options["rank"] == 32
    assert found.stages[0].options["packing"] is False
    assert found.data == [{"path": "b.jsonl"}]
    assert found.optimizer.options["rank"] == 2


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.epoch=3", "command line: training.epoch: unknown key (did you mean 'epochs'?)"),
        ("adapter.rank=big", "command line: adapter.rank: found 'big'"),
        ("training", "command line: found 'training', expected key=value"),
        ("data.7.path=x", "command line: data.7.path: names no field"),
        ("model.x.y=1", "command line: model"),
    ],
)
def test_a_wrong_override_is_reported_as_one(recipe, override, line):
    assert line in said(recipe, GOOD, override)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("2e4", 2e4),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("2024-01-01", "2024-01-01"),
        ("12", 12),
        ("-0.5", -0.5),
        ("null", None),
        ("0x10", 16),
        ("${oc.env:HF_TOKEN}", "${oc.env:HF_TOKEN}"),
        ("'1'", "1"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_mean_what_they_look_like(written, value):
    assert yamlio.parse(f"a: {written}", "r")[0] == {"a": value}


def test_yaml_cannot_run_code(tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(RecipeError, match="r:1: is not safe, valid YAML"):
        yamlio.parse(f"a: !!python/object/apply:os.system ['touch {marker}']", "r")
    assert not marker.exists()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "once its aliases are expanded"),
        ("a: " + "[" * 10_000, "nested deeper than"),
        ("a: &a [*a]", "once its aliases are expanded"),
    ],
    ids=["bomb", "deep", "loop"],
)
def test_a_yaml_bomb_is_refused_at_once(text, reason):
    began = time.process_time()
    with pytest.raises(RecipeError, match=reason):
        yamlio.parse(text, "r")
    assert time.process_time() - began < 5  # expanding any of them would take minutes


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"#" * (yamlio.MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="larger than"):
        yamlio.read(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "is not a UTF-8 text"),
        (b"", "found no sections"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, data, reason):
    path = tmp_path / "r.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RecipeError, match=reason):
        check.resolve(path)


def test_secrets_are_masked_in_what_is_written(recipe):
    text = GOOD.replace(
        "path: a.jsonl", "path: a.jsonl, hf_token: abc, options: {api_key: x, tokens_per_batch: 4}"
    )
    masked = mask(yaml.safe_load(text))
    assert masked["data"][0] == {
        "path": "a.jsonl",
        "hf_token": "***",
        "options": {"api_key": "***", "tokens_per_batch": 4},
    }


def test_a_stage_of_a_list_has_its_own_data_and_training(recipe, tmp_path):
    text = GOOD.replace(
        "stage: {name: mine, packing: true}",
        "stages:\n  - {name: mine, data: [{path: b.jsonl}], training: {epochs: 7}}\n  - mine",
    )
    recipe(text)
    (tmp_path / "r.yaml").write_text(text)
    first, second = check.resolve(tmp_path / "r.yaml").stages
    assert (first.training.epochs, first.training.learning_rate) == (7, 2e-4)
    assert [entry.path for entry in first.data] == ["b.jsonl"]
    assert second.training.epochs == 1
    assert [entry.path for entry in second.data] == ["a.jsonl"]
    wrong = said(recipe, text.replace("epochs: 7", "epochz: 7"))
    assert "stages.0.training.epochz: unknown key (did you mean 'epochs'?)" in wrong
