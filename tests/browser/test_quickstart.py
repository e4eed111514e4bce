"""The quickstart, by mouse alone: from an empty workspace to a model that answers."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browser.driver import Opened
from browser.workbench import Workbench

Seen = Callable[[Page, str], None]


def quickstart(page: Page, seen: Seen = lambda page, name: None) -> str:
    """From the page of an empty workspace to a reply, which is returned. seen: is called with a
    name where a picture is worth taking."""
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    page.get_by_role("button", name="quickstart").click()
    page.wait_for_url("**/plan**")
    expect(page.locator("[data-steps]")).to_be_visible(timeout=90_000)
    seen(page, "plan")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/quickstart")
    expect(page.locator('[data-chart="loss"] canvas')).to_be_visible(timeout=90_000)
    expect(page.locator("#head")).to_have_attribute("data-status", "completed", timeout=180_000)
    seen(page, "run")
    page.get_by_role("main").get_by_role("link", name="Chat").click()
    page.wait_for_url("**/chat?**")
    page.get_by_role("button", name="Start chat").click()
    page.wait_for_url("**/chat/*")
    box = page.get_by_label("Message", exact=True)
    box.fill("What is your name?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".message.assistant .meta")).to_be_visible(timeout=120_000)
    reply = page.locator(".message.assistant .markdown").inner_text()
    seen(page, "chat")
    return reply


@pytest.mark.slow
def test_the_quickstart_by_mouse(
    visit: Callable[..., Opened], own_workbench: Callable[..., Workbench]
) -> None:
    server = own_workbench(runs=False)
    assert "Wren" in quickstart(visit("/", server).page)
    assert (server.folder / "runs/quickstart/loss.png").is_file()
