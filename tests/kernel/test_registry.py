"""Finding plugins by name, and the errors."""

import sys

import pytest

from tunewright import registry
from tunewright.errors import RecipeError, RunError
from tunewright.registry import PluginCaller
from tunewright.types import AdapterRequest, LoadedModel

ADAPTER = """
class A(Plugin):
    "An adapter."
    @hookimpl
    def apply_adapter(self, request):
        request.loaded.model.append("A")
        return request.loaded
"""


def handle(name: str, *wrappers: str) -> PluginCaller:
    entry = registry.find("adapter", name)
    plugin = registry.load(entry)
    made = []
    for wrapper in wrappers:
        found = registry.find("accelerator", wrapper)
        accelerator = registry.load(found)
        made.append(accelerator(accelerator.Options(), wrapper))
    return PluginCaller(entry, plugin(plugin.Options(), name), made)


def test_listing_imports_nothing(install):
    install("tw-broken", {"adapter": {"broken": "tw_broken:A"}}, "raise RuntimeError('imported')")
    assert "broken" in [entry.name for entry in registry.entries("adapter")]


def test_a_name_that_two_distributions_claim_names_both_and_the_qualified_form_works(install):
    install("tw-one", {"adapter": {"mine": "tw_one:A"}}, ADAPTER)
    install("tw-two", {"adapter": {"mine": "tw_two:A"}}, ADAPTER)
    with pytest.raises(
        RecipeError, match=r"claimed by tw-one and tw-two \(write 'tw-one:mine' or 'tw-two:mine'\)"
    ):
        registry.find("adapter", "mine")
    assert registry.find("adapter", "tw-two:mine").distribution == "tw-two"


def test_an_unknown_name_says_what_is_close(install):
    install("tw-one", {"adapter": {"banana": "tw_one:A"}}, ADAPTER)
    with pytest.raises(
        RecipeError, match=r"no installed plugin gives the adapter 'bananna'.*did you mean 'banana'"
    ):
        registry.find("adapter", "bananna")


def test_a_known_name_that_is_not_installed_says_what_brings_it(monkeypatch):
    monkeypatch.setattr(
        registry, "shipped_table", lambda: {"known": {"adapter": {"loha": "tunewright-loha"}}}
    )
    with pytest.raises(RecipeError, match="pip install tunewright-loha"):
        registry.find("adapter", "loha")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no\\nway')", "RuntimeError: no way"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("B = 1", "AttributeError"),
        ("A = 1", "is not a subclass of tunewright.Plugin"),
    ],
)
def test_a_broken_plugin_is_one_line_that_names_its_distribution(install, source, said):
    install("tw-broken", {"adapter": {"broken": "tw_broken:A"}}, source)
    with pytest.raises(RecipeError) as error:
        registry.load(registry.find("adapter", "broken"), "r.yaml:3: adapter")
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("r.yaml:3: adapter: adapter 'broken' of tw-broken 1.0 is broken")
    assert said in text


def test_the_kernel_version_is_checked_before_the_import(install):
    install(
        "tw-old",
        {"adapter": {"old": "tw_old:A"}},
        "raise RuntimeError('imported')",
        ("tunewright<0.1",),
    )
    with pytest.raises(RecipeError, match=r"needs tunewright<0.1, this is tunewright 0.1.0"):
        registry.load(registry.find("adapter", "old"))


WRAPPERS = """
class Outer(Plugin):
    @hookimpl(wrapper=True)
    def apply_adapter(self, request):
        request.loaded.model.append("outer before")
        result = yield
        result.model.append("outer after")
        return result

class Inner(Plugin):
    @hookimpl(wrapper=True)
    def apply_adapter(self, request):
        request.loaded.model.append("inner before")
        result = yield
        result.model.append("inner after")
        return result

class Replaces(Plugin):
    @hookimpl
    def apply_adapter(self, request):
        return request.loaded
"""
POINTS = {"outer": "tw_speed:Outer", "inner": "tw_speed:Inner", "replaces": "tw_speed:Replaces"}


@pytest.mark.parametrize("order", [("outer", "inner"), ("inner", "outer")])
def test_the_first_accelerator_is_the_outermost(install, order):
    install("tw-one", {"adapter": {"mine": "tw_one:A"}}, ADAPTER)
    install("tw-speed", {"accelerator": POINTS}, WRAPPERS)
    loaded = handle("mine", *order).call(
        "apply_adapter", run=None, request=AdapterRequest(LoadedModel([], None))
    )
    first, second = order
    assert loaded.model == [
        f"{first} before",
        f"{second} before",
        "A",
        f"{second} after",
        f"{first} after",
    ]


def test_an_accelerator_may_not_replace_a_step(install):
    install("tw-one", {"adapter": {"mine": "tw_one:A"}}, ADAPTER)
    install("tw-speed", {"accelerator": POINTS}, WRAPPERS)
    with pytest.raises(RecipeError, match="'replaces' replaces apply_adapter; it may only wrap it"):
        handle("mine", "replaces")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "class A(Plugin):\n    @hookimpl\n    def aply_adapter(self, request): ...",
            "aply_adapter",
        ),
        (
            "class A(Plugin):\n    @hookimpl\n    def apply_adapter(self, request, extra): ...",
            "extra",
        ),
        ("class A(Plugin):\n    pass", "has no implementation of apply_adapter"),
    ],
)
def test_a_hook_that_is_misspelt_wrong_or_missing_is_an_error(install, source, said):
    install("tw-one", {"adapter": {"mine": "tw_one:A"}}, source)
    with pytest.raises(RecipeError, match=said):
        handle("mine")


def test_no_result_is_an_error(install):
    install(
        "tw-one",
        {"adapter": {"mine": "tw_one:A"}},
        "class A(Plugin):\n    @hookimpl\n    def apply_adapter(self): ...",
    )
    with pytest.raises(RunError, match="apply_adapter of adapter 'mine' gave nothing"):
        handle("mine").call("apply_adapter", run=None, request=None)


FACTORY = """
def make(path):
    class FromFile(Plugin):
        file = path
        @hookimpl
        def format_template(self): ...
    return FromFile
"""


@pytest.mark.parametrize(
    "file", ["tw_data/templates/mine.jinja", "tw_data/templates/mine/template.jinja"]
)
def test_a_plugin_that_is_only_data_needs_no_python(install, file, tmp_path):
    install("tw-factory", {"from_files": {"template": "tw_factory:make"}}, FACTORY)
    install("tw-data", {"template": {"mine-only": "tw_data.templates.mine"}}, files={file: "x"})
    (tmp_path / "tw_data.py").unlink()
    plugin = registry.load(registry.find("template", "mine-only"))
    assert plugin.file.as_posix().endswith(file)
    assert "tw_data" not in sys.modules
