"""Property test: any recipe raises only TunewrightErrors, in printable lines."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.strategies import GOOD, JUNK, overrides, recipes, yaml_texts
from tunewright import check, folder, yamlio
from tunewright.errors import RecipeError, TunewrightError
from tunewright.recipe import mask

FAST = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def resolved(recipe, *changes: str) -> None:
    """Resolve; a recipe that is good is one that can be written and read again."""
    lines: list[str] = []
    try:
        found = check.resolve(recipe, changes, look=True)
    except TunewrightError as error:
        lines = error.lines or [""]
    assert all(0 < len(line) < 3_000 and "\n" not in line for line in lines)
    if lines:
        return
    again = yamlio.parse(yaml.safe_dump(found.recipe.as_dict(), allow_unicode=True), "again")[0]
    assert check.resolve(again).recipe.as_dict() == found.recipe.as_dict()


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_what_is_mutated_is_good(number):
    check.resolve(GOOD[number])


@FAST
@given(recipes())
def test_values(recipe):
    resolved(recipe)


@FAST
@given(st.sampled_from(GOOD), st.lists(overrides(), min_size=1, max_size=3))
def test_overrides(recipe, changes):
    resolved(recipe, *changes)


def test_a_long_tag_is_cut():
    resolved(GOOD[0], "model=!" + 4_000 * "9")


@settings(max_examples=300)
@given(yaml_texts())
def test_texts(text):
    value, lines, place = None, {}, "r.yaml"
    try:
        value, lines = yamlio.parse(text, "r.yaml")
    except RecipeError as error:
        place = error.place
    assert place.startswith("r.yaml")
    yaml.safe_dump(value).encode()
    assert all(line >= 1 for line in lines.values())


@settings(max_examples=60)
@given(yaml_texts())
def test_recipes_from_texts(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    resolved(path)


@settings(max_examples=100)
@given(JUNK)
def test_masking_takes_anything(value):
    mask(value)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["path", "weights", "steps", "tokens", "metrics"]), JUNK))
def test_stages_of_run_json(tmp_path_factory, stage):
    base = tmp_path_factory.getbasetemp()
    try:
        found = folder.result(base, stage)
    except TunewrightError:
        return
    assert found.path.resolve().is_relative_to(base.resolve())
