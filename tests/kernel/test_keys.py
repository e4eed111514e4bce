"""Keys of other frameworks: each hint is something that a recipe can hold."""

import re

import pytest
import yaml

from tunewright import check, kinds, registry
from tunewright.launch_section import Launch
from tunewright.recipe import RecipeFields, Training
from tunewright.source import RecipeProblems

KEYS = registry.shipped_table()["keys"]
#: kind → the plugin whose options `KIND.option` are, where it is not that of any
PLUGINS = {
    "adapter": "lora",
    "dataset": "chat",
    "family": "llama",
    "optimizer": "adamw",
    "quantizer": "bitsandbytes",
    "template": "chatml",
}


def options(kind, name):
    return registry.load(registry.find(kind, name)).Options


def is_field(section, field):
    if section == "training":
        return field in Training.model_fields
    if section == "launch":
        return field in Launch.model_fields | options("launcher", "torchrun").model_fields
    if section == "data":
        return field in registry.load(registry.find("dataset", "chat")).Entry.model_fields
    if section == "stage":
        found = [options("stage", name) for name in ("sft", "dpo", "grpo")]
        return any(field in each.model_fields for each in found)
    return field in options(section, PLUGINS[section]).model_fields


def check_section(section, value):
    """A section that a hint spells out has plugins and options that there are."""
    kind = "stage" if section == "stage" else kinds.sections()[section].name
    for each in value if isinstance(value, list) else [value]:
        given = each if isinstance(each, dict) else {"name": each}
        given = dict(given)
        options(kind, given.pop("name")).model_validate(given)


@pytest.mark.parametrize("key", KEYS)
def test_each_hint_is_something_that_a_recipe_can_hold(key):
    hint = KEYS[key]
    if hint.startswith("nothing, "):
        return
    if found := re.search(r"(\w+): ([\[{].*)$", hint):
        check_section(found[1], yaml.safe_load(found[2]))
    first = re.match(r"[\w.]+", hint)[0]
    section, _, field = first.partition(".")
    assert section in {*RecipeFields.model_fields, *kinds.sections(), "stage", "data"}
    assert not field or is_field(section, field), first


def test_a_recipe_of_another_framework_is_told_our_names():
    recipe = {"model": "tiny", "output": "x", "stage": "sft", "neftune_noise_alpha": 5}
    with pytest.raises(RecipeProblems, match=r"neftune_noise_alpha: .*write accelerators: \[\{"):
        check.resolve(recipe)
