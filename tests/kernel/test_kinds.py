"""A third party declares a kind: recipes, listings, hooks and schema know it."""

import json
import sys
import tomllib

import pytest

import kernel_fakes as fakes
from tunewright import check, cli, kinds, registry, run
from tunewright.errors import RecipeError, RunError
from tunewright.recipe import RecipeFields
from tunewright.schema import schema
from tunewright_new.plugin import write_plugin

KIND = """
from tunewright.kinds import Kind
from tunewright.hookspecs import hookspec

@hookspec(firstresult=True)
def weigh_sources(run, request):
    raise NotImplementedError

KINDS = (
    Kind("mixer", "Chooses how sources are mixed.", ("weigh_sources",), %s specs="tw_kind"),
)
"""
MIXERS = """
class Even(Plugin):
    class Options(PluginOptions):
        power: float = 1.0

    @hookimpl
    def weigh_sources(self, request):
        return [self.options.power for _ in request]

class Hookless(Plugin):
    pass
"""
POINTS = {"mixer": {"even": "tw_mixers:Even", "hookless": "tw_mixers:Hookless"}}


@pytest.fixture
def resolved(tmp_path, install):
    """resolved(how the kind is declared, more of the recipe, source of the declaration)"""

    def _resolved(how: str, more: str = "", source: str = KIND, point: str = "tw_kind:KINDS"):
        source = source % how if "%s" in source else source
        install("tw-kind", {"kind": {"ours": point}}, source)
        install("tw-mixers", POINTS, MIXERS)
        install("tw-mine", fakes.POINTS, fakes.SOURCE)
        (tmp_path / "r.yaml").write_text(fakes.RECIPE % (tmp_path / "out") + more)
        return check.resolve(tmp_path / "r.yaml")

    return _resolved


def test_a_recipe_has_a_section_for_it_and_its_hook_is_called(resolved):
    found = resolved("", "mixer: {name: even, power: 3}\n")
    assert found.recipe.as_dict()["mixer"] == {"name": "even", "power": 3.0}
    assert found.options("mixer").power == 3
    assert run.Run(found).call("mixer", "weigh_sources", ["a", "b"]) == [3, 3]


def test_without_a_section_there_is_none_or_the_default(resolved):
    assert "mixer" not in resolved("").choices


def test_a_required_kind_has_its_default(resolved):
    found = resolved('required=True, default="even",')
    assert found.recipe.as_dict()["mixer"] == {"name": "even", "power": 1.0}
    assert check.resolve(found.recipe.as_dict()).recipe.as_dict() == found.recipe.as_dict()


def test_a_required_kind_without_default_must_be_written(resolved):
    with pytest.raises(RecipeError, match=r"r.yaml: mixer: is missing \(there is: even, hookless"):
        resolved("required=True,")


def test_a_kind_of_which_a_recipe_takes_many(resolved):
    found = resolved("many=True,", "mixers: [even, {name: even, power: 2}]\n")
    assert [choice.options.power for choice in found.lists["mixer"]] == [1, 2]
    assert [choice.at for choice in found.lists["mixer"]] == [("mixers", 0), ("mixers", 1)]


def test_plugins_of_which_a_recipe_takes_many_are_reached_through_the_run(resolved):
    made = run.Run(resolved("many=True,", "mixers: [even, {name: even, power: 2}]\n"))
    callers = made.callers("mixer")
    assert [each.call("weigh_sources", run=made, request=["a"]) for each in callers] == [[1], [2]]
    assert made.callers("logger") == made.callers("adapter") == made.callers("nothing") == []
    with pytest.raises(RunError, match="this run has no mixer"):
        made.plugin("mixer")


def test_they_are_closed_when_the_run_ends(resolved):
    made = run.Run(resolved("many=True,", "mixers: [even]\n"))
    (caller,) = made.callers("mixer")
    closed = []
    caller.plugin.close = lambda: closed.append("mixer")
    with made.reporting([]):
        assert closed == []
    assert closed == ["mixer"]


def test_its_plugins_are_described(resolved, capsys, monkeypatch):
    resolved("")
    monkeypatch.setattr(sys, "argv", ["tunewright", "plugins", "info", "mixer:even"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "mixer even, from tw-mixers 1.0" in shown and "power (1.0)" in shown


def test_a_plugin_of_it_can_be_begun(resolved, tmp_path, install):
    resolved("many=True,")
    files = write_plugin("uneven", "mixer", tmp_path / "new")
    names = {str(path.relative_to(tmp_path / "new")) for path in files}
    assert names == {"pyproject.toml", "README.md", "src/tunewright_uneven/__init__.py"}
    project = tomllib.loads((tmp_path / "new/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["tunewright.mixer"] == {"uneven": "tunewright_uneven:Uneven"}
    assert project["dependencies"] == ["tunewright>=0.1,<0.2", "tw-kind"]
    source = (tmp_path / "new/src/tunewright_uneven/__init__.py").read_text()
    install("tw-uneven", {"mixer": {"uneven": "tw_uneven:Uneven"}}, source)
    caller = registry.PluginCaller(
        registry.find("mixer", "uneven"), registry.load(registry.find("mixer", "uneven"))(None)
    )
    with pytest.raises(NotImplementedError):
        caller.call("weigh_sources", run=None, request=None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("mixer: {name: even, powr: 3}", "mixer.powr: unknown key (did you mean 'power'?)"),
        ("mixer: evn", "no installed plugin gives the mixer 'evn' (did you mean 'even'?)"),
        ("mixxer: even", "mixxer: unknown key (did you mean 'mixer'?)"),
        ("mixer: 5", "mixer: found 5, expected the name of a plugin"),
    ],
)
def test_its_mistakes_have_place_and_remedy(resolved, more, said):
    with pytest.raises(RecipeError) as error:
        resolved("", more + "\n")
    assert "r.yaml:12: " in str(error.value)
    assert said in str(error.value)


def test_a_plugin_without_its_hook_stops_the_run(resolved):
    with pytest.raises(RecipeError, match="has no implementation of weigh_sources"):
        run.Run(resolved("", "mixer: hookless\n"))


def test_listing_and_schema_show_it(resolved, capsys, monkeypatch):
    resolved("")
    monkeypatch.setattr(sys, "argv", ["tunewright", "plugins", "list", "--kind", "mixer", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == ["even", "hookless"]
    made = schema()
    assert made["properties"]["mixer"]["description"] == "Chooses how sources are mixed."
    assert made["$defs"]["mixer-even"]["properties"]["power"]["default"] == 1.0


BROKEN = {
    "import": ("import nothing_like_this\nKINDS = ()", "No module named 'nothing_like_this'"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "no kinds": ("KINDS = [7]", "declares int, expected tunewright.kinds.Kind"),
    "no list": ("KINDS = 7", "TypeError"),
    "name": (
        "from tunewright.kinds import Kind\nKINDS = [Kind('My-Kind')]",
        "lower-case letters",
    ),
    "taken": (
        "from tunewright.kinds import Kind\nKINDS = [Kind('adapter')]",
        "there is already a kind with this name",
    ),
    "section": (
        "from tunewright.kinds import Kind\nKINDS = [Kind('training')]",
        "recipes have a section 'training' already",
    ),
    "list": (
        "from tunewright.kinds import Kind\nKINDS = [Kind('loggers')]",
        "there is already a kind with this name",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_declaration_is_reported_where_it_is_used_and_harms_nobody_else(resolved, name):
    source, said = BROKEN[name]
    found = resolved("", source=source)
    assert run.Run(found).plugin("adapter").name == "mine"
    with pytest.raises(RecipeError, match="mixer: unknown key") as error:
        check.resolve(found.recipe.as_dict() | {"mixer": "even"})
    assert said in str(error.value)
    assert len(kinds.broken) == 1


SPECS = {
    "missing": ("", "specifies no weigh_sources"),
    "raises": ("raise ValueError('no')", "specifies no weigh_sources"),
    "takes another's": (
        "from tunewright.hookspecs import load_model\n@hookspec(firstresult=True)\n"
        "def weigh_sources(run, request): ...",
        "specifies no weigh_sources",
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_kind_whose_hooks_are_broken_harms_nobody_else(resolved, name, install):
    install("tw-specs", {}, "from tunewright.hookspecs import hookspec\n" + SPECS[name][0])
    declared = KIND.replace("tw_kind", "tw_specs")
    found = resolved("", source=declared)
    assert run.Run(found).plugin("adapter").name == "mine"
    with_it = check.resolve(found.recipe.as_dict() | {"mixer": "even"})
    with pytest.raises(RecipeError, match=f"the kind 'mixer' is broken: .*{SPECS[name][1]}"):
        run.Run(with_it)


def test_no_kind_takes_the_name_of_a_field():
    reserved = {"stage", *RecipeFields.model_fields}
    assert reserved - {"stage"} == kinds._RESERVED
    assert not reserved & kinds.sections().keys()
