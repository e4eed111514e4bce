"""Checks 20 to 39: runs that are trained, watched, stopped, resumed and lost."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser.driver import Opened
from browser.workbench import Workbench

Visit = Callable[..., Opened]
Own = Callable[..., Workbench]


def recipe(name: str, **training: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "family": "qwen",
        "template": "qwen3",
        "data": [{"path": "data/greetings.jsonl"}],
        "stage": "sft",
        "training": {"max_length": 256, "logging_steps": 1, "save_steps": 20, **training},
        "output": f"runs/{name}",
    }


def steps_of(server: Workbench, name: str) -> list[int]:
    """Steps of the loss curve, as the API gives them."""
    status, found = server.api(f"/runs/{name}/metrics?points=20000&keys=loss")
    assert status == 200, found
    steps: list[int] = found["series"]["loss"]["step"]
    return steps


def points(page: Page) -> int:
    return int(page.locator("#curves").get_attribute("data-points") or 0)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_20_21_22_24_31_32_39_a_run_outlives_browser_and_server(
    visit: Visit, own_workbench: Own
) -> None:
    """Started, watched in nine tabs, with a queue behind it; the server is killed and started
    again; stopped, resumed, and at last its process is killed."""
    server = own_workbench()
    status, job = server.api("/jobs", {"recipe": recipe("watched", max_steps=100_000)})
    assert status == 201, job
    found = visit("/runs/watched", server)
    found.expected = ("Failed to load resource: net::ERR",)
    page = found.page
    expect(page.locator("#head")).to_have_attribute("data-status", re.compile("queued|running"))
    until(lambda: points(page) > 3)  # without a reload

    tabs = [page.context.new_page() for _ in range(8)]
    for tab in tabs:
        tab.goto(f"{server.address}/runs/watched")
    seen = [points(tab) for tab in tabs]
    for tab, before in zip(tabs, seen, strict=True):
        until(lambda tab=tab, before=before: points(tab) > before)  # type: ignore[misc]
        tab.close()

    _check_queue(server, page)
    page.goto(f"{server.address}/runs/watched")
    _check_restart(server, page)

    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#head")).to_have_attribute("data-status", "interrupted", timeout=60_000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    stopped = steps_of(server, "watched")
    assert stopped == list(range(1, len(stopped) + 1))
    page.get_by_role("link", name="Files").click()
    expect(page.get_by_text(f"step-{stopped[-1]}").first).to_be_visible()

    page.get_by_role("button", name="Resume").click()
    until(lambda: steps_of(server, "watched")[-1] > stopped[-1] + 3)
    resumed = steps_of(server, "watched")
    assert resumed == list(range(1, len(resumed) + 1))

    [running] = [each for each in server.api("/jobs")[1]["jobs"] if each["status"] == "running"]
    child = json.loads((server.folder / ".tunewright/jobs" / running["id"] / "pid").read_text())
    os.kill(child["child"], signal.SIGKILL)
    expect(page.get_by_text("failed (137)").first).to_be_visible(timeout=10_000)
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def _check_queue(server: Workbench, page: Page) -> None:
    """Check 31: order and cancelling, by the buttons of the queue."""
    for name in ("first", "second", "third"):
        assert server.api("/jobs", {"recipe": recipe(name, max_steps=1)})[0] == 201
    page.goto(server.address)
    queue = page.locator(".queue li a")
    expect(queue).to_have_text(["first", "second", "third"])
    page.get_by_role("button", name="Move third up").click()
    expect(queue).to_have_text(["first", "third", "second"])
    for name in ("first", "third", "second"):
        page.get_by_role("button", name=f"Cancel {name}").click()
        expect(page.get_by_role("button", name=f"Cancel {name}")).to_have_count(0)
    assert not (server.folder / "runs/first").exists()


def _check_restart(server: Workbench, page: Page) -> None:
    """Checks 21 and 39: the server is killed and started again."""
    expect(page.locator("#curves")).to_have_attribute("data-drawn", re.compile(r"\d"))
    port = server.port
    server.stop(signal.SIGKILL)
    expect(page.locator("#gone")).to_be_visible(timeout=10_000)
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    before = points(page)
    server.start(port)
    expect(page.locator("#gone")).to_contain_text("again", timeout=20_000)
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    until(lambda: points(page) > before)


def test_30_one_of_two_starts_wins(own_workbench: Own) -> None:
    server = own_workbench()
    body = {"recipe": recipe("twice", max_steps=100_000)}
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: server.api("/jobs", body), range(2)))
    assert sorted(status for status, _ in answers) == [201, 409]
    [job] = [found for status, found in answers if status == 201]
    path = f"/jobs/{job['id']}"
    until(lambda: server.api(f"{path}/stop", {})[0] == 200)
    until(lambda: server.api(path)[1]["status"] not in ("running", "stopping"))


@pytest.mark.slow
def test_26_what_the_kernel_says_stands_at_the_top(visit: Visit, own_workbench: Own) -> None:
    server = own_workbench()
    (server.folder / "data/greetings.jsonl").write_text('{"instruction": "Hi"}\n', encoding="utf-8")
    status, job = server.api("/jobs", {"recipe": recipe("broken", max_steps=1)})
    assert status == 201, job
    page = visit("/runs/broken", server).page
    expect(page.locator("#head")).to_have_attribute("data-status", "failed", timeout=60_000)
    expect(page.locator("#head .box.bad")).to_contain_text("greetings.jsonl")
