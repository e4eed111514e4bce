"""Forms over every installed plugin: nothing is written that was not typed, and what was typed
round-trips."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunewright import check, kinds, registry, yamlio
from tunewright_web import form as forms
from tunewright_web.form import Field
from tunewright_web.merging import changed, rows, without
from tunewright_web.recipe_form import read, texts_of
from tunewright_web.values import Unreadable, as_yaml, parse, unparse

EXAMPLES = sorted(Path(__file__).parents[2].glob("docs/examples/**/*.yaml"))
SMALL = {"model": "tiny", "family.name": "qwen", "output": "runs/a", "data.0.path": "a.jsonl"}


@pytest.fixture(scope="module")
def form():
    return forms.installed()


def every_plugin(form):
    for key, section in form.sections.items():
        for name, plugin in section.plugins.items():
            yield key, section, name, plugin


def prefix(key, section):
    return f"{key}.0" if section.many else key


def _sections():
    more = {"stages": kinds.kind_of("stage"), "launch": kinds.kind_of("launcher")}
    return {**kinds.sections(), **more}


def test_every_installed_plugin_of_each_kind_is_offered(form):  # check 7
    for key, kind in _sections().items():
        section, names = form.sections[key], {entry.name for entry in registry.entries(kind.name)}
        broken = {line.split("'")[1] for line in section.broken}
        assert set(section.plugins) | broken == names and section.help
        for name, plugin in section.plugins.items():
            options = registry.load(registry.find(kind.name, name)).Options.model_fields
            own = {field.key for field in plugin.fields if field.widget != "sources"}
            common = {"processes", "nodes", "timeout"} if key == "launch" else {"training"}
            assert own - common == set(options) - {"name"} - common, (key, name)
            assert all(field.help for field in plugin.fields if field.widget != "sources")


def test_an_untouched_form_gives_an_empty_recipe(form):  # check 9
    assert read(form, {}).recipe == {}
    assert read(form, {"model": "", "adapter.name": " ", "adapter.rank": ""}).recipe == {}


def test_only_what_was_typed_is_written(form):  # check 9
    texts = {**SMALL, "stages.0.name": "sft", "training.learning_rate": "1e-4"}
    assert read(form, texts).recipe == {
        "model": "tiny",
        "family": "qwen",
        "data": [{"path": "a.jsonl"}],
        "stage": "sft",
        "training": {"learning_rate": 1e-4},
        "output": "runs/a",
    }


def test_a_chosen_plugin_with_nothing_typed_is_its_name(form):
    for key, section, name, _ in every_plugin(form):
        found = read(form, {f"{prefix(key, section)}.name": name})
        wanted = [name] if section.many and key != "stages" else name
        assert found.recipe == {"stage" if key == "stages" else key: wanted}
        assert not found.problems


def test_defaults_that_are_typed_are_read_as_they_are(form):
    """What a form shows as the default is, when it is typed, the same value."""
    for key, section, name, plugin in every_plugin(form):
        start = prefix(key, section)
        own = [each for each in plugin.fields if each.widget != "sources" and not each.required]
        texts = {f"{start}.{field.key}": unparse(field, field.default) for field in own}
        typed = {**texts, f"{start}.name": name}
        found = read(form, typed)
        value = found.recipe["stage" if key == "stages" else key]
        value = value[0] if section.many and key != "stages" else value
        value = {} if value == name else value
        for field in own:
            if field.default is not None or field.nullable:
                assert field.key in value and value[field.key] == field.default, (name, field)
                same = type(value[field.key]) is type(field.default)
                assert same or field.widget == "number", (name, field)
        assert texts_of(form, found.recipe) == {k: v for k, v in typed.items() if v.strip()}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_round_trip(form, example):
    recipe = yamlio.read(example)[0]
    found = read(form, texts_of(form, recipe))
    assert not found.problems
    again = yamlio.parse(as_yaml(found.recipe), "again")[0]
    assert again == found.recipe
    one, two = (check.resolve(each, combined=False).recipe.as_mapping() for each in (recipe, again))
    assert one == two


NUMBER, INTEGER = Field("rate", "number"), Field("rank", "integer")


@pytest.mark.parametrize(  # check 12
    ("field", "text", "value"),
    [
        (NUMBER, "1e-4", 1e-4),
        (NUMBER, " 5 ", 5),
        (NUMBER, "-0.1", -0.1),
        (NUMBER, ".5", 0.5),
        (INTEGER, "-3", -3),
        (INTEGER, "2.0", 2.0),
        (Field("a", "switch"), "true", True),
        (Field("a", "choice", choices=(4, 8)), "8", 8),
        (Field("a", "text"), '""', ""),
        (Field("a", "text"), "123", "123"),
        (Field("a", "text", nullable=True), "null", None),
        (Field("a", "text"), "null", "null"),
        (Field("a", "lines", choices=("all",)), "all", "all"),
        (Field("a", "lines"), "q_proj, k_proj\nv", ["q_proj", "k_proj", "v"]),
        (Field("a", "lines"), '"a{1,2}", b', ["a{1,2}", "b"]),
        (Field("a", "lines"), "[]", []),
        (Field("a", "yaml"), "{a: 1e-3}", {"a": 1e-3}),
    ],
)
def test_texts_are_read_as_shown(field, text, value):
    found = parse(field, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(  # check 12
    ("field", "text", "said"),
    [
        (NUMBER, "1,000", "write 1000"),
        (INTEGER, "1 000", "write 1000"),
        (INTEGER, "1_000", "write 1000"),
        (NUMBER, "NaN", "expected a number"),
        (NUMBER, ".nan", "expected a number"),
        (NUMBER, "inf", "expected a number"),
        (NUMBER, "1e999", "expected a number"),
        (NUMBER, "１２", "expected a number"),
        (INTEGER, "many", "expected a whole number"),
        (INTEGER, "9" * 5000, "expected a whole number"),
        (INTEGER, "0x10", "expected a whole number"),
        (Field("a", "yaml"), "[1, 2", "YAML"),
        (Field("a", "yaml"), "!!python/object:os.system x", "YAML"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_field(field, text, said):
    with pytest.raises(Unreadable) as refused:
        parse(field, text)
    assert said in f"{refused.value} {refused.value.hint}"


def test_an_unreadable_text_is_a_problem_and_no_value(form):
    found = read(form, {"training.learning_rate": "1,000", "optimizer.beta1": "many"})
    assert found.recipe == {}
    assert [found.name(problem.path) for problem in found.problems] == [
        "optimizer.beta1",
        "training.learning_rate",
    ]


def test_a_yaml_bomb_is_refused(form):  # check 13
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
        for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    found = read(form, {"data.0.columns": bomb})
    assert "data" not in found.recipe and "50,000" in found.problems[0].message


def test_unknown_keys_of_an_uploaded_recipe_are_named(form):  # check 13
    recipe = {"model": "tiny", "adapter": {"name": "lora", "ranck": 8}, "trainning": {"x": 1}}
    found = read(form, texts_of(form, recipe))
    assert found.recipe == recipe
    with pytest.raises(check.RecipeProblems) as refused:
        check.resolve(found.recipe)
    said = str(refused.value)
    assert "did you mean 'rank'?" in said and "did you mean 'training'?" in said


@pytest.mark.parametrize(
    "value", [5, ["lora"], {"rank": 8}, {"name": 5}, "", {"name": "lora", "targets": {"a": [1]}}]
)
@pytest.mark.parametrize("key", ["adapter", "loggers", "data", "eval_data", "training"])
def test_values_of_a_wrong_sort_are_kept_for_the_check(form, key, value):
    found = read(form, texts_of(form, {key: value}))
    assert found.problems or found.recipe.get(key) == value or value == ""


def test_another_plugin_keeps_common_options_and_drops_the_others(form):  # check 8
    texts = {"adapter.name": "lora", "adapter.rank": "16", "adapter.dora": "true", "model": "a"}
    found = changed(form, texts, {"adapter.name": "adalora"})
    common = {field.key for field in form.sections["adapter"].plugins["adalora"].fields}
    assert ("adapter.rank" in found) == ("rank" in common) and "adapter.dora" not in found
    assert found["model"] == "a" and found["adapter.name"] == "adalora"


def test_options_of_the_default_plugin_name_it(form):
    assert read(form, {"optimizer.beta1": "0.8"}).recipe == {
        "optimizer": {"name": "adamw", "beta1": 0.8}
    }


def test_options_of_a_launcher(form):
    """Those of the default one stand without its name, which would start one process, too."""
    for launch in (
        {"processes": 2},
        {"processes": 2, "main_port": 1234},
        {"name": "slurm", "partition": "gpu", "sbatch": {"mem": "64G"}, "nodes": 2},
        "ray",
    ):
        recipe = {**read(form, SMALL).recipe, "launch": launch}
        texts = texts_of(form, recipe)
        assert ("launch.name" in texts) == ("processes" not in launch)
        assert read(form, texts).recipe == recipe and not read(form, texts).problems
    slurm = changed(
        form, {"launch.processes": "2", "launch.main_port": "1"}, {"launch.name": "slurm"}
    )
    assert slurm == {"launch.processes": "2", "launch.name": "slurm"}


def test_rows_are_removed_and_counted(form):
    texts = {"data.0.path": "a", "data.1.path": "b", "data.2.path": "c", "model": "m"}
    assert without(texts, "data.1") == {"data.0.path": "a", "data.1.path": "c", "model": "m"}
    assert rows(texts, "data") == 3 and rows(texts, "stages") == 0
    assert without(texts, "model") == texts == without(texts, "data.x")


def test_problems_are_found_at_their_row_where_one_is_empty(form):
    texts = {"data.0.path": "", "data.1.path": "a.jsonl", "data.1.limit": "0", "model": "tiny"}
    found = read(form, texts)
    assert found.name(("data", 0, "limit")) == "data.1.limit"


def test_evaluation_sets_and_several_stages(form):
    recipe = {
        "stages": [
            {"name": "sft", "data": [{"path": "a"}], "training": {"epochs": 2}},
            {"name": "dpo", "eval_data": {"x": [{"path": "b"}, {"path": "c"}]}},
        ],
        "eval_data": {"one": [{"path": "d"}], "two": [{"path": "e"}, {"path": "f"}]},
    }
    found = read(form, texts_of(form, recipe))
    assert found.recipe == recipe and not found.problems
    assert found.name(("eval_data", "two", 1, "path")) == "eval_data.2.path"
    assert found.name(("stages", 1, "eval_data", "x", 1, "path")) == "stages.1.eval_data.1.path"


@given(st.text(min_size=1), st.sampled_from(["text", "lines", "yaml"]))
def test_texts_round_trip(text, widget):
    field = Field("a", widget, nullable=True)
    value = [text] if widget == "lines" else text
    if any(ord(letter) < 32 or 0xD7FF < ord(letter) < 0xE000 for letter in text):
        return
    assert parse(field, unparse(field, value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_numbers_round_trip(number):
    assert parse(NUMBER, unparse(NUMBER, number)) == number
    assert yamlio.parse(as_yaml({"a": number}), "")[0]["a"] == number
    assert yaml.safe_load(as_yaml({"a": float(number)}))["a"] == float(number)


@given(st.text())
def test_yaml_of_texts_is_read_as_the_same_text(text):
    if any(0xD7FF < ord(letter) < 0xE000 or not letter.isprintable() for letter in text):
        return
    assert yamlio.parse(as_yaml({"a": text}), "")[0] == {"a": text}
