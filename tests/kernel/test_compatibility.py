"""Plugins of another minor version than the kernel say what to upgrade."""

import pytest

from tunewright import compatibility, registry
from tunewright.errors import RecipeError

SOURCE = "raise RuntimeError('imported')"


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This kernel is 0.3.0."""
    monkeypatch.setattr("tunewright.__version__", "0.3.0")


def load(name: str) -> str:
    with pytest.raises(RecipeError) as error:
        registry.load(registry.find("adapter", name), "recipe.yaml: adapter")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("newer")
def test_an_older_plugin_is_what_to_upgrade(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("tw-old", {"adapter": {"old": "tw_old:A"}}, SOURCE, ("tunewright>=0.1,<0.2",))
    monkeypatch.setattr(compatibility, "outdated", lambda: ["tw-old"])
    said = load("old")
    assert (
        "adapter 'old' of tw-old 1.0 needs tunewright>=0.1,<0.2, this is tunewright 0.3.0" in said
    )
    assert "(pip install --upgrade tw-old; if there is no newer one: " in said
    assert 'pip install "tunewright>=0.1,<0.2")' in said


@pytest.mark.usefixtures("newer")
def test_several_older_plugins_are_one_command(install) -> None:
    for name in ("tw-old", "tw-older"):
        points = {"adapter": {name: f"{name.replace('-', '_')}:A"}}
        install(name, points, SOURCE, ("tunewright (<0.2,>=0.1)",))
    assert {"tw-old", "tw-older"} <= set(compatibility.outdated())
    assert "(tunewright plugins install --upgrade: " in load("tw-old")


def test_a_newer_plugin_needs_a_newer_kernel(install) -> None:
    install("tw-new", {"adapter": {"new": "tw_new:A"}}, SOURCE, ("tunewright>=0.9,<0.10",))
    assert "(pip install --upgrade tunewright tw-new)" in load("new")
    assert "tw-new" not in compatibility.outdated()


def test_shared_code_of_another_version_is_noticed_too(install) -> None:
    """pip upgrades a plugin's requirement without the plugin."""
    needs = ("tunewright>=0.1", "tunewright-hf>=0.2,<0.3", "numpy<1")
    install("tw-hf", {"adapter": {"mine": "tw_hf:A"}}, SOURCE, needs)
    said = load("mine")
    assert "needs tunewright-hf>=0.2,<0.3, this is tunewright-hf 0.1.0" in said
    assert "(pip install --upgrade tunewright-hf tw-hf)" in said


@pytest.mark.parametrize(
    "need", ["tunewright-hf>=9; extra == 'x'", "tunewrightish<0.1", "tunewright-other>=9"]
)
def test_other_requirements_are_pips_business(install, need: str) -> None:
    """Those of extras, and of distributions that are not installed or not ours."""
    install("tw-fine", {"adapter": {"fine": "tw_fine:A"}}, "class A(Plugin):\n    ...", (need,))
    assert registry.load(registry.find("adapter", "fine"))


def test_an_invalid_range_fits_nothing(install) -> None:
    install("tw-odd", {"adapter": {"odd": "tw_odd:A"}}, SOURCE, ("tunewright>=zero",))
    assert "needs tunewright>=zero" in load("odd")
