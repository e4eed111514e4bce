"""Checks 25, 27, 28 and 33 to 38: runs whose folders say something special."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from browser.driver import Opened
from browser.test_runs import points, until
from browser.workbench import Workbench

Visit = Callable[..., Opened]


@pytest.fixture
def strange(own_workbench: Callable[..., Workbench]) -> Workbench:
    return own_workbench()


def add_job(server: Workbench, name: str, *, code: int, log: str) -> Path:
    """A job of the past that wrote a run."""
    folder = server.folder / ".tunewright/jobs" / f"20260101-000000-{name[:6]}"
    folder.mkdir()
    now = time.time()
    job = {"kind": "train", "title": name, "argv": ["train"], "output": f"runs/{name}"}
    job |= {"order": now, "created": now, "started": now, "slot": "", "about": {}}
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "exit").write_text(json.dumps({"code": code, "time": now}))
    (folder / "log.txt").write_text(log)
    return folder


def test_25_a_recipe_error_is_shown(visit: Visit, strange: Workbench) -> None:
    (strange.folder / "runs/refused").mkdir()
    add_job(strange, "refused", code=2, log="error: recipe.yaml: stage: no such stage 'sfft'\n")
    page = visit("/runs/refused", strange).page
    expect(page.get_by_text("failed (2)").first).to_be_visible()
    expect(page.locator("#head .box.bad")).to_contain_text("no such stage 'sfft'")


def events(server: Workbench, name: str, values: list[float | None]) -> Path:
    """A copy of a run with other losses, one a step."""
    folder = server.copy_run("greeter", name)
    kept = []
    for line in (folder / "events.jsonl").read_text("utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "StageStarted":
            event["total_steps"] = len(values)
        if event["event"] not in ("Logged", "Evaluated", "Saved"):
            kept.append(event)
        if event["event"] == "StageStarted":
            began = event["time"]
            for step, value in enumerate(values, 1):
                logged = {"event": "Logged", "time": began + step, "stage": "sft", "step": step}
                logged |= {"total_steps": len(values), "metrics": {"loss": value, "tokens": step}}
                kept.append(logged)
    lines = [json.dumps(each) + "\n" for each in kept]
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_27_values_that_are_not_finite_are_a_gap(visit: Visit, strange: Workbench) -> None:
    events(strange, "nans", [3.0, 2.0, None, None, 1.0])
    page = visit("/runs/nans", strange).page
    expect(page.locator("#head")).to_contain_text("2 values were not finite")
    expect(page.locator('[data-chart="loss"] canvas')).to_be_visible()
    assert strange.api("/runs/nans/metrics?points=50")[1]["series"]["loss"]["value"][2] is None


def test_28_a_run_of_a_terminal_can_be_stopped(visit: Visit, strange: Workbench) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        started = psutil.Process(sleeper.pid).create_time()
        running = {"pid": sleeper.pid, "host": socket.gethostname(), "started": started + 1}
        running |= {"stage": "sft", "total_steps": 40, "step": 3}
        strange.copy_run("greeter", "terminal", status="running", running=running)
        page = visit("/runs/terminal", strange).page
        expect(page.locator("#head")).to_have_attribute("data-status", "running")
        page.get_by_role("button", name="Stop").click()
        assert sleeper.wait(20) == -signal.SIGTERM
        expect(page.locator("#head")).to_have_attribute("data-status", "lost", timeout=10_000)
        page.get_by_role("link", name="Log").click()
        expect(page.get_by_text("started in a terminal")).to_be_visible()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_33_a_spike_among_ten_thousand_steps_is_seen(visit: Visit, strange: Workbench) -> None:
    losses = [2.0 + 1 / step for step in range(1, 10_001)]
    losses[6_543] = 99.0
    events(strange, "long", losses)
    page = visit("/runs/long", strange).page
    until(lambda: points(page) > 1000)
    series = strange.api("/runs/long/metrics?points=2000")[1]["series"]["loss"]
    assert len(series["step"]) < 5_000
    assert (series["step"][0], series["step"][-1]) == (1, 10_000)
    assert max(series["value"]) == 99.0
    assert series["step"][series["value"].index(99.0)] == 6_544
    chart = page.locator('[data-chart="loss"]')
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 6_543 / 9_999, box["y"] + box["height"] / 2)
    expect(chart.locator(".legend")).to_contain_text(re.compile(r"Step \d+"))


@pytest.mark.long
def test_34_two_hundred_thousand_steps(visit: Visit, strange: Workbench) -> None:
    events(strange, "endless", [2.0 + 1 / step for step in range(1, 200_001)])
    found = visit("/runs/endless", strange)
    until(lambda: points(found.page) > 1000)
    began = time.monotonic()
    found.page.reload()
    until(lambda: points(found.page) > 1000)
    assert time.monotonic() - began < 10  # 1 s on an idle machine: tests/bench/web.py
    used = found.page.evaluate("() => performance.memory.usedJSHeapSize")
    assert used < 200e6


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_35_many_runs(visit: Visit, strange: Workbench, count: int) -> None:
    source = strange.folder / "runs/greeter"
    for number in range(count):
        folder = strange.folder / f"runs/many-{number:04}"
        folder.mkdir()
        for name in ("run.json", "events.jsonl"):
            shutil.copy(source / name, folder / name)
    found = visit("/", strange, width=390)
    expect(found.page.locator("tr[data-run]").first).to_be_visible()
    found.assert_fits()
    found.page.get_by_role("searchbox").fill("many-0123")
    found.page.get_by_role("searchbox").press("Enter")
    expect(found.page.locator("tr[data-run]")).to_have_count(1)
    assert len(strange.api("/runs?q=many")[1]["runs"]) == count


def test_36_a_log_of_50_megabytes(visit: Visit, strange: Workbench) -> None:
    line = "step 1 loss 1.234567890 " * 4 + "\n"
    folder = add_job(strange, "greeter", code=0, log=line * (50_000_000 // len(line)))
    page = visit("/runs/greeter?tab=log", strange).page
    log = page.locator("#log")
    expect(log).to_contain_text("step 1 loss")
    assert log.evaluate("each => each.textContent.length") < 1_000_000

    def distance() -> float:
        return float(log.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight"))

    until(lambda: distance() < 40)
    with (folder / "log.txt").open("a") as file:
        file.write("the new end\n")
    expect(log).to_contain_text("the new end", timeout=15_000)
    assert distance() < 40
    log.evaluate("each => { each.scrollTop = 0; }")
    with (folder / "log.txt").open("a") as file:
        file.write("a later line\n")
    expect(log).to_contain_text("a later line", timeout=15_000)
    assert log.evaluate("each => each.scrollTop") == 0


def test_37_damaged_folders_do_not_hide_the_others(visit: Visit, strange: Workbench) -> None:
    (strange.copy_run("greeter", "damaged") / "run.json").write_text('{"status": "runn')
    torn = strange.copy_run("greeter", "torn")
    with (torn / "events.jsonl").open("a") as file:
        file.write('{"event": "Logged", "step": 99')
    gone = strange.copy_run("greeter", "gone")
    found = visit("/", strange)
    found.expected = ("Failed to load resource: the server responded with a status of 404",)
    page = found.page
    for name in ("damaged", "torn", "gone", "greeter", "longer"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    page.goto(f"{strange.address}/runs/damaged")
    expect(page.locator("#head .box.bad")).to_contain_text("run.json is damaged")
    page.goto(f"{strange.address}/runs/torn")
    expect(page.locator("#curves")).to_have_attribute("data-points", "40")
    page.goto(f"{strange.address}/runs/gone")
    expect(page.locator("#curves")).to_have_attribute("data-points", "40")
    shutil.rmtree(gone)
    page.reload()
    expect(page.get_by_text("there is no run 'gone'")).to_be_visible()
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_role("link", name="greeter", exact=True)).to_be_visible()


def test_38_two_runs_are_compared(visit: Visit) -> None:
    page = visit().page
    expect(page.locator("#compare-button")).to_be_disabled()
    for name in ("greeter", "longer"):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.locator("#compare-button").click()
    page.wait_for_url("**/compare?**")
    expect(page.locator("#plot canvas")).to_be_visible()
    expect(page.locator("#comparison")).to_have_attribute("data-points", "60")
    expect(page.locator("#legend")).to_contain_text("greeter")
    rows = page.locator(".sides").first.locator("tbody th")
    expect(rows).to_have_text(["training.learning_rate", "training.max_steps"])
    page.get_by_label("Horizontal axis").select_option("tokens")
    page.get_by_text("Values as a table").click()
    expect(page.locator("#rows th").first).to_have_text("Tokens")
    page.get_by_label("Metric").select_option("eval/held_out/loss")
    expect(page.locator("#comparison")).to_have_attribute("data-points", re.compile("^[3-6]$"))
