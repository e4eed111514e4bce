"""Checks 4 and 46 to 51: what holds on every page."""

import itertools
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.driver import WIDTHS, Opened, opened
from browser.places import places
from browser.workbench import Workbench

Visit = Callable[..., Opened]
#: the width, colours and language of what CI looks at; the other combinations are `long`
_FIRST = {(1440, False, "en"), (390, True, "zh")}
LOOKS = [
    pytest.param(width, dark, language, marks=[] if key in _FIRST else [pytest.mark.long])
    for key in itertools.product(WIDTHS, (False, True), ("en", "zh"))
    for width, dark, language in [key]
]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark", "language"), LOOKS)
def test_04_47_48_every_page(
    visit: Visit, workbench: Workbench, width: int, dark: bool, language: str
) -> None:
    """No error, no other host, no violation of axe-core's rules, no sideways scroll."""
    found = visit(width=width, dark=dark, language=language)
    found.expected = ("Failed to load resource: the server responded with a status of 404",)
    problems = []
    for path in places(workbench):
        found.page.goto(workbench.address + path)
        found.page.wait_for_load_state("networkidle")
        for check in (found.assert_accessible, found.assert_fits):
            try:
                check()
            except AssertionError as error:
                problems.append(f"{path}: {str(error)[:1500]}")
    assert not problems, "\n\n".join(problems)


def test_modules_are_loaded_once(visit: Visit, workbench: Workbench) -> None:
    """Two addresses of one module would be two modules: everything would be asked for twice."""
    page = visit().page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.goto(f"{workbench.address}/runs/greeter")
    expect(page.locator("#charts canvas").first).to_be_visible()
    assert asked.count("/static/app.js") == 1


def focused(page: Page) -> str:
    return page.evaluate(
        "() => (document.activeElement.textContent || document.activeElement.id).trim()"
    )


def tab_to(page: Page, text: str) -> None:
    """Press Tab until an element with this text or id has the focus, which is seen."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if text in focused(page):
            style = page.evaluate(
                "() => { const found = getComputedStyle(document.activeElement);"
                " return [found.outlineStyle, found.outlineWidth]; }"
            )
            assert style[0] != "none" and style[1] != "0px", style
            return
    raise AssertionError(f"Tab does not reach {text!r}")


@pytest.mark.slow
def test_46_keyboard_alone_leads_to_a_finished_chat(visit: Visit) -> None:
    page = visit().page
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    page.reload()
    tab_to(page, "Chat")
    page.keyboard.press("Enter")
    page.wait_for_url("**/chat")
    tab_to(page, "Start chat")
    page.keyboard.press("Enter")
    page.wait_for_url("**/chat/*")
    expect(page.locator('.engine[data-state="ready"]')).to_be_visible(timeout=90_000)
    tab_to(page, "message")
    page.keyboard.type("Say hello to Ben.")
    page.keyboard.press("Enter")
    expect(page.locator("#thread")).to_have_attribute("data-busy", "yes")
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.locator(".message.assistant .meta")).to_be_visible(timeout=60_000)
    assert page.evaluate("() => document.activeElement.id") == "message"


def test_50_charts_are_drawn_anew_when_colours_change(visit: Visit) -> None:
    page = visit("/compare?run=greeter&run=longer").page
    canvas = page.locator("#plot canvas")
    expect(canvas).to_be_visible()
    picture = "each => each.toDataURL()"
    light = canvas.evaluate(picture)
    page.emulate_media(color_scheme="dark")
    end = time.monotonic() + 10
    while page.locator("#plot canvas").evaluate(picture) == light:
        assert time.monotonic() < end
        page.wait_for_timeout(50)
    text, ground = page.evaluate(
        "() => { const probe = document.createElement('span'); probe.className = 'probe axis';"
        " document.body.append(probe); return [getComputedStyle(probe).color,"
        " getComputedStyle(document.querySelector('.chart')).backgroundColor]; }"
    )
    assert contrast(text, ground) >= 4.5


def contrast(one: str, other: str) -> float:
    """Ratio of two CSS colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_49_the_language_can_be_chosen(visit: Visit) -> None:
    page = visit("/settings").page
    page.get_by_label("Language").select_option("zh")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    for path in ("/", "/chat", "/compare", "/export", "/evaluate", "/runs/greeter"):
        page.goto(path)
        head = page.get_by_role("navigation").first.inner_text()
        assert not re.search(r"[A-Za-z]{3,}", head.replace("workspace", "")), head


def test_51_without_javascript_lists_and_forms_work(browser: Browser, workbench: Workbench) -> None:
    with opened(browser, workbench.address, java_script_enabled=False) as found:
        page = found.page
        workbench.enter(page)
        expect(page.get_by_role("link", name="greeter", exact=True)).to_be_visible()
        page.goto("/runs/greeter")
        expect(page.locator("noscript img")).to_be_visible()
        page.goto("/compare")
        for name in ("greeter", "longer"):
            page.get_by_role("checkbox", name=name).check()
        page.get_by_role("main").get_by_role("button", name="Compare").click()
        expect(page.get_by_text("training.max_steps")).to_be_visible()
        page.goto("/settings")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
