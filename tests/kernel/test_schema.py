"""The schema of recipes: every installed plugin, each set of options once, from a cache."""

import json
import subprocess
import sys

import pytest

from tunewright import index, kinds, registry, schema, schema_cache

SOURCE = """
from pathlib import Path
from pydantic import Field

class A(Plugin):
    class Options(PluginOptions):
        where: Path | None = Field(None, json_schema_extra={"widget": "path"})
        '''Where it is.'''
        key: str = Field("", description="A secret.", json_schema_extra={"widget": "secret"})
        rare: int = Field(3, json_schema_extra={"tier": "advanced"})

class Same(A):
    pass
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/tunewright"


@pytest.fixture
def made(monkeypatch) -> list[int]:
    found: list[int] = []
    real = schema.schema
    monkeypatch.setattr(schema, "schema", lambda left: found.append(1) or real(left))
    return found


@pytest.fixture(scope="module")
def whole():
    return schema.schema()


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_section_and_every_plugin_is_there(whole):
    assert {*kinds.sections(), "stage", "stages", "model"} <= whole["properties"].keys()
    assert whole["title"] == "Recipe" and whole["additionalProperties"] is False
    for kind in ("adapter", "optimizer", "stage"):
        where = whole["$defs"]["stage"] if kind == "stage" else whole["properties"][kind]
        assert where["anyOf"][0]["enum"] == sorted(
            {entry.name for entry in registry.entries(kind)} - broken()
        )


def broken() -> set[str]:
    """Plugins of this machine that cannot be imported: they are left out."""
    left: list[str] = []
    schema.schema(left)
    return {said.split("'")[1] for said in left}


def test_stage_and_stages_refer_to_one_definition(whole):
    stage = {"$ref": "#/$defs/stage"}
    assert whole["properties"]["stages"]["items"] == stage
    assert whole["properties"]["stage"].items() >= stage.items()
    assert json.dumps(whole).count('"#/$defs/stage-sft"') == 1


def test_the_section_launch_has_the_options_of_launchers(whole, install):
    """Those of the default launcher may stand without its name; others are known by it."""
    launch = whole["properties"]["launch"]
    assert launch["anyOf"][0]["enum"] == [entry.name for entry in registry.entries("launcher")]
    usual = whole["$defs"]["launcher-torchrun"]
    assert {"name", "processes", "nodes", "timeout", "main_port"} <= usual["properties"].keys()
    assert "name" not in usual["required"] and "Launch" not in whole["$defs"]
    source = SOURCE.replace("class A(Plugin):", "class A(Launcher):")
    source = "from tunewright.launch import Launcher\n" + source
    install("tw-one", {"launcher": {"one": "tw_one:A"}}, source)
    own = schema.schema()["$defs"]["launcher-one"]
    assert {"key", "processes"} <= own["properties"].keys() and own["required"] == ["name"]


def test_every_reference_leads_somewhere_and_every_definition_is_used(whole):
    found = set(references(whole))
    for path in found:
        here = whole
        for part in path.removeprefix("#/").split("/"):
            here = here[part]
    assert {f"#/$defs/{name}" for name in whole["$defs"]} <= found


def test_tiers_widgets_and_descriptions_are_kept(install):
    install("tw-one", {"adapter": {"one": "tw_one:A", "same": "tw_one:Same"}}, SOURCE)
    own = schema.schema()["$defs"]["adapter-options-one"]["properties"]
    assert own["name"] == {"enum": ["one", "same"]}
    assert (own["where"]["widget"], own["where"]["description"]) == ("path", "Where it is.")
    assert (own["key"]["widget"], own["key"]["description"]) == ("secret", "A secret.")
    assert own["rare"]["tier"] == "advanced" and "tier" not in own["key"]


def test_paths_of_the_recipe_itself_have_their_widget(whole):
    for name in ("model", "output", "data_root"):
        assert whole["properties"][name]["widget"] == "path"


def test_it_is_made_once_for_the_same_plugins(made, install, cache):
    first = schema_cache.schema()
    assert schema_cache.schema() == first and made == [1]
    install("tw-one", {"adapter": {"one": "tw_one:A"}}, SOURCE)
    assert "adapter-one" in schema_cache.schema()["$defs"] and made == [1, 1]
    for text in ("", "{", "[]", '{"schema": {}}', "[" * 50_000):
        for file in cache.glob("schema-*.json"):
            file.write_text(text)
        assert "adapter-one" in schema_cache.schema()["$defs"]
    assert len(made) == 2 + 5


def test_an_editable_plugin_that_is_edited_is_read_again(made, install, tmp_path, monkeypatch):
    source = tmp_path / "sources"
    source.mkdir()
    install("tw-one", {"adapter": {"edited": "tw_edited:A"}}, "")
    begin = "from tunewright import Plugin, PluginOptions\n"
    (source / "tw_edited.py").write_text(begin + SOURCE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(source)])
    index.key.cache_clear()
    assert "rare" in schema_cache.schema()["$defs"]["adapter-edited"]["properties"]
    (source / "tw_edited.py").write_text(begin + SOURCE.replace("rare", "new"))
    sys.modules.pop("tw_edited")
    assert "new" in schema_cache.schema()["$defs"]["adapter-edited"]["properties"]
    sys.modules.pop("tw_edited")
    assert len(made) == 2


def test_a_plugin_that_is_broken_is_left_out_and_said_each_time(install, capsys):
    install("tw-one", {"adapter": {"one": "tw_one:A"}}, "raise ValueError('\\x1b[31m')")
    for _ in range(2):
        assert "one" not in schema_cache.schema()["properties"]["adapter"]["anyOf"][0]["enum"]
        error = capsys.readouterr().err
        assert "left out: adapter 'one' of tw-one 1.0 is broken: ValueError" in error
        assert "\x1b" not in error


def test_from_the_cache_it_needs_no_plugin(cache):
    code = (
        "import sys, json; from tunewright import schema_cache; schema_cache.schema()\n"
        "print(sorted({'pydantic', 'jinja2', 'tunewright_lora', 'yaml'} & sys.modules.keys()))"
    )
    schema_cache.schema()
    for _ in range(2):  # the process has a sys.path, and so a key, of its own
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    assert done.stdout == "[]\n"
