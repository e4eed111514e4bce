"""Chromium of the system, driven by Playwright, and the questions that are asked of every page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

__all__ = ["WIDTHS", "Opened", "chromium", "opened"]

#: phone, tablet, desk: CSS pixels
WIDTHS = (390, 900, 1440)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LANGUAGES = {"en": "en-GB", "zh": "zh-CN"}
#: what a page may load from elsewhere: nothing
_OWN = {"127.0.0.1", "localhost", ""}
_ON_VIOLATION = """addEventListener("securitypolicyviolation", event => console.error(
    `content security policy: ${event.effectiveDirective} blocked ${event.blockedURI}`))"""
_TARGETS = """() => [...document.querySelectorAll(
    "a[href], button, select, summary, input:not([type=hidden]), textarea")]
  .filter(each => each.checkVisibility())
  .filter(each => !each.closest("p, li, td, th, dd, pre, .skip, .markdown"))
  .map(each => {
    const label = each.matches("[type=checkbox], [type=radio]") && each.closest("label");
    const box = (label || each).getBoundingClientRect();
    return [each.outerHTML.slice(0, 120), box.width, box.height];
  }).filter(([, width, height]) => width > 1 && height > 1 && height < 40)"""


def executable() -> str | None:
    """The browser: the one that TUNEWRIGHT_CHROMIUM names, or the first on PATH."""
    given = os.environ.get("TUNEWRIGHT_CHROMIUM")
    return given or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is no browser."""
    path = executable()
    if path is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium, or set TUNEWRIGHT_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page, with what its console said and which hosts it asked."""

    page: Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    #: beginnings of console errors that a test brings about on purpose
    expected: tuple[str, ...] = ()

    def watch(self) -> None:
        self.page.add_init_script(_ON_VIOLATION)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda each: self.hosts.add(urlsplit(each.url).hostname or ""))

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def assert_quiet(self) -> None:
        """No error in the console, no violation of the policy, no other host."""
        unexpected = [each for each in self.errors if not each.startswith(self.expected or ("\0",))]
        assert not unexpected, unexpected
        assert self.hosts <= _OWN, self.hosts

    def assert_accessible(self, *, without: tuple[str, ...] = ()) -> None:
        """No violation of axe-core's rules, but for those named."""
        self.page.evaluate(f"() => {{ {AXE_SCRIPT} }}")
        rules = {name: {"enabled": False} for name in without}
        found = self.page.evaluate(
            "async rules => (await axe.run({resultTypes: ['violations'], rules})).violations",
            rules,
        )
        said = [
            f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
            for each in found
            for node in each["nodes"][:3]
        ]
        assert not said, "\n".join(said)

    def assert_fits(self) -> None:
        """No sideways scroll, and nothing to tap that is lower than 40 pixels."""
        wide, room = self.page.evaluate(
            "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= room, f"{self.page.url}: {wide} px in {room}: {self._too_wide()}"
        assert not (small := self.page.evaluate(_TARGETS)), small

    def _too_wide(self) -> list[str]:
        return self.page.evaluate(
            "() => [...document.querySelectorAll('main *')].filter(each => "
            "each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
            ".slice(0, 5).map(each => each.outerHTML.slice(0, 120))"
        )


@contextmanager
def opened(
    browser: Browser,
    address: str,
    *,
    width: int = 1440,
    dark: bool = False,
    language: str = "en",
    **how: Any,
) -> Iterator[Opened]:
    """A page in a context of its own, without cookies. how: of `Browser.new_context`."""
    context: BrowserContext = browser.new_context(
        base_url=address,
        viewport={"width": width, "height": 844 if width < 640 else 900},
        color_scheme="dark" if dark else "light",
        locale=_LANGUAGES[language],
        reduced_motion="reduce",
        **how,
    )
    context.set_default_timeout(15_000)
    try:
        found = Opened(context.new_page())
        found.watch()
        yield found
    finally:
        context.close()
