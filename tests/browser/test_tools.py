"""The pages Export and Evaluate: a job of each, and what it found."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from browser.driver import Opened
from browser.workbench import Workbench
from tunewright import registry

Visit = Callable[..., Opened]


@pytest.mark.slow
def test_a_run_is_exported_and_the_report_shown(visit: Visit, workbench: Workbench) -> None:
    found = visit("/export")
    found.expected = ("Failed to load resource: the server responded with a status of 4",)
    page = found.page
    names = page.get_by_label("Format").locator("option").all_inner_texts()
    assert set(names) == {entry.name for entry in registry.entries("exporter")}
    page.get_by_label("Run", exact=True).select_option("greeter")
    page.wait_for_url("**run=greeter**")
    page.get_by_label("Shard size").fill("many")
    page.get_by_label("Name of the new folder").fill("../x")
    page.get_by_role("main").get_by_role("button", name="Export").click()
    expect(page.locator("#notices .box")).to_be_visible()
    page.get_by_label("Shard size").fill("")
    page.get_by_label("Name of the new folder").fill("")
    page.get_by_label("Dtype").select_option("float32")
    page.get_by_role("main").get_by_role("button", name="Export").click()
    page.wait_for_url("**to=safetensors**")
    expect(page.locator(".job")).to_be_visible()
    report = page.locator("article", has_text="greeter-safetensors")
    expect(report).to_contain_text("verified", timeout=90_000)
    expect(report).to_contain_text("dtype=float32")
    assert (workbench.folder / "exports/greeter-safetensors/model.safetensors").is_file()
    status, said = workbench.api("/exports", {"run": "greeter", "to": "safetensors"})
    assert (status, said["error"]) == (409, "exports/greeter-safetensors exists already")


@pytest.mark.slow
def test_a_run_is_evaluated_and_the_table_shown(visit: Visit, workbench: Workbench) -> None:
    page = visit("/evaluate?run=greeter").page
    names = page.get_by_label("Evaluator").locator("option").all_inner_texts()
    assert set(names) == {entry.name for entry in registry.entries("evaluator")}
    page.get_by_label("Limit").fill("2")
    page.get_by_role("main").get_by_role("button", name="Evaluate").click()
    page.wait_for_url("**with=perplexity**")
    result = page.locator("article", has_text="greeter · perplexity")
    expect(result).to_contain_text("perplexity", timeout=90_000)
    expect(result.locator("tbody tr").last).to_contain_text("2")
    result.get_by_text("Picture").click()
    picture = result.get_by_role("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("async each => { await each.decode(); return each.naturalWidth; }") > 99


def test_paths_of_options_stay_in_the_workspace(workbench: Workbench) -> None:
    for data in ("/etc/passwd", "../x.jsonl", {"path": "/etc/passwd"}, "file:///etc/passwd"):
        body = {"run": "greeter", "evaluator": "perplexity", "options": {"data": data}}
        status, said = workbench.api("/evaluations", body)
        assert (status, said["error"][-23:]) == (403, "is not in the workspace"), said
    body = {"run": "greeter", "evaluator": "perplexity", "options": {"limt": 1}}
    assert workbench.api("/evaluations", body)[0] == 422
    assert workbench.api("/exports", {"run": "greeter", "to": "nothing"})[0] == 422
