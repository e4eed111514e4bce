"""Checks 7 and 55: distributions of others, which this repository does not know."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.driver import Opened
from browser.workbench import Workbench

_CODE = '''
from markupsafe import Markup
from tunewright import Adapter, PluginOptions
from tunewright_web.panels import Panel


class Sharp(Adapter):
    """An adapter of a stranger."""

    class Options(PluginOptions):
        sharpness: int = 7
        """Angle of the blade, in degrees."""


class Raises(Panel):
    label = "Raises"

    def show(self, context):
        raise ValueError("no luck today")


class Inline(Panel):
    label = "Inline"

    def show(self, context):
        return Markup("<p id='own'>shown</p><script>document.title = 'hit'</script>")
'''
_ENTRIES = """
[tunewright.adapter]
sharp = strange_things:Sharp
[tunewright.panel]
raises = strange_things:Raises
inline = strange_things:Inline
"""


@pytest.fixture
def strangers(tmp_path: Path, own_workbench: Callable[..., Workbench]) -> Workbench:
    """A server where a distribution of others is installed."""
    site = tmp_path / "site"
    info = site / "strange_things-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "strange_things.py").write_text(_CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-things\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRIES)
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    return own_workbench(PYTHONPATH=path)


@pytest.mark.slow
def test_07_a_plugin_of_others_has_its_fields(
    visit: Callable[..., Opened], strangers: Workbench
) -> None:
    page = visit("/new", strangers).page
    page.get_by_role("button", name="Empty recipe").click()
    page.locator(".steps").get_by_role("button", name="Method").click()
    page.wait_for_url("**/method")
    page.locator('[id="f-adapter.name"]').select_option("sharp")
    field = page.locator('[id="f-adapter.sharpness"]')
    expect(field).to_have_attribute("placeholder", "7")
    expect(page.locator('[id="h-adapter.sharpness"]')).to_have_text(
        "Angle of the blade, in degrees."
    )


@pytest.mark.slow
def test_55_a_panel_that_raises_or_has_a_script(
    visit: Callable[..., Opened], strangers: Workbench
) -> None:
    found = visit("/", strangers)
    found.page.get_by_role("link", name="Raises").click()
    expect(found.page.get_by_text("no luck today")).to_be_visible()
    expect(found.page.get_by_role("navigation").first).to_be_visible()
    found.assert_quiet()
    found.page.get_by_role("link", name="Inline").click()
    expect(found.page.locator("#own")).to_have_text("shown")
    assert found.page.title() != "hit"
    assert any("script-src" in each for each in found.errors)
    found.errors.clear()
