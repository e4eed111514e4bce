"""Checks 7 to 19: the wizard of a new run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

import tunewright
from browser.driver import Opened
from browser.workbench import Workbench
from tunewright import registry
from tunewright_web.form import installed

Visit = Callable[..., Opened]


@pytest.fixture
def blank(visit: Visit) -> Page:
    """The first step of an empty draft."""
    page = visit("/new").page
    page.get_by_role("button", name="Empty recipe").click()
    page.wait_for_url("**/model")
    return page


def field(page: Page, name: str) -> Locator:
    """The input of a field of the recipe; folds around it are opened."""
    found = page.locator(f'[id="f-{name}"]')
    found.evaluate("each => { for (let up = each; up; up = up.parentElement) up.open = true; }")
    return found


def change(page: Page, name: str, text: str) -> None:
    """Type into a field, and wait until it is kept."""
    found = field(page, name)
    with page.expect_response(lambda each: each.request.method == "POST"):
        if found.evaluate("each => each.tagName") == "SELECT":
            found.select_option(text)
        else:
            found.fill(text)
            found.dispatch_event("change")


def step(page: Page, name: str) -> None:
    page.locator(".steps").get_by_role("button", name=name).click()
    page.wait_for_url(re.compile(name.lower()))


def written(page: Page) -> dict[str, object]:
    """The recipe that the form has written, from the file that can be downloaded."""
    address = re.sub(r"/(model|data|method|plan)(\?.*)?(#.*)?$", "/recipe.yaml", page.url)
    return yaml.safe_load(page.request.get(address).text()) or {}


def a_good_recipe(page: Page, output: str) -> None:
    """Fill in what a recipe needs; the page is then that of the plan."""
    change(page, "model", "tiny")
    change(page, "family.name", "qwen")
    step(page, "Data")
    change(page, "data.0.path", "data/greetings.jsonl")
    step(page, "Method")
    change(page, "stages.0.name", "sft")
    step(page, "Plan")
    change(page, "output", output)


def test_07_every_plugin_is_offered(blank: Page) -> None:
    form = installed()
    for key, where in (("family", "Model"), ("template", "Model"), ("dataset", "Data")):
        step(blank, where)
        options = field(blank, f"{key}.name").locator("option")
        values = options.evaluate_all("all => all.map(each => each.value)")
        assert set(values) - {""} == set(form.sections[key].plugins), key
    step(blank, "Method")
    for key in ("adapter", "quantizer", "optimizer", "scheduler", "engine"):
        options = field(blank, f"{key}.name").locator("option")
        values = options.evaluate_all("all => all.map(each => each.value)")
        assert set(values) - {""} == {entry.name for entry in registry.entries(key)}, key


def test_08_choosing_an_adapter_shows_its_options(blank: Page) -> None:
    step(blank, "Method")
    change(blank, "adapter.name", "lora")
    change(blank, "adapter.rank", "4")
    change(blank, "adapter.name", "adalora")
    expect(blank.locator('[id="f-adapter.name"]')).to_have_value("adalora")
    change(blank, "adapter.name", "lora")
    expect(field(blank, "adapter.rank")).to_have_value("4")
    change(blank, "adapter.name", "full")
    expect(blank.locator('[id="f-adapter.rank"]')).to_have_count(0)
    assert written(blank)["adapter"] in ("full", {"name": "full"})


def test_09_only_what_was_typed_is_written(blank: Page) -> None:
    assert written(blank) == {}
    step(blank, "Method")
    stage = {"stage": "sft"}  # suggested by the step, and seen as the value of its field
    expect(field(blank, "stages.0.name")).to_have_value("sft")
    rate = field(blank, "training.learning_rate")
    expect(rate).to_have_value("")
    assert rate.get_attribute("placeholder")
    change(blank, "adapter.name", "lora")
    alpha = field(blank, "adapter.alpha")
    assert alpha.get_attribute("placeholder") != "0"
    change(blank, "training.learning_rate", "1e-4")
    typed = {"adapter": "lora", "training": {"learning_rate": 1e-4}}
    assert written(blank) == typed | stage


def test_10_the_recipe_is_accepted(blank: Page, workbench: Workbench, tmp_path: Path) -> None:
    a_good_recipe(blank, "runs/accepted")
    blank.get_by_role("button", name="Check").click()
    expect(blank.get_by_text("The recipe is good.")).to_be_visible()
    shown = yaml.safe_load(blank.locator("#recipe pre").inner_text())
    assert shown == written(blank)
    file = workbench.folder / "written.yaml"
    file.write_text(yaml.safe_dump(shown), encoding="utf-8")
    resolved = tunewright.resolve(file)
    assert resolved.recipe.as_dict()["model"] == "tiny"


def test_11_two_mistakes_are_shown_at_their_fields(blank: Page) -> None:
    a_good_recipe(blank, "runs/mistaken")
    step(blank, "Method")
    change(blank, "training.learning_rate", "-1")
    change(blank, "adapter.name", "lora")
    change(blank, "adapter.rank", "many")
    blank.get_by_role("button", name="Check").click()
    blank.wait_for_url("**check=1**")
    summary = blank.locator("#problems")
    expect(summary).to_contain_text("2 problems")
    expect(summary).to_be_focused()
    for name in ("training.learning_rate", "adapter.rank"):
        expect(blank.locator(f'[data-field="{name}"] .problem')).to_be_visible()
        expect(field(blank, name)).to_have_attribute("aria-invalid", "true")
    summary.get_by_role("link", name="adapter.rank").click()
    expect(field(blank, "adapter.rank")).to_be_in_viewport()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), (".5", 0.5), ("1,000", None), ("NaN", None), ("fast", None), ("-1", None)],
)
def test_12_numbers_are_read_as_shown_or_refused(
    blank: Page, text: str, value: float | None
) -> None:
    step(blank, "Method")
    change(blank, "training.learning_rate", text)
    expect(field(blank, "training.learning_rate")).to_have_value(text)
    if value is not None:
        assert written(blank)["training"] == {"learning_rate": value}
        return
    blank.get_by_role("button", name="Check").click()
    blank.wait_for_url("**check=1**")
    problem = blank.locator('[data-field="training.learning_rate"] .problem')
    expect(problem).to_be_visible()


def test_13_a_recipe_is_taken_over(visit: Visit) -> None:
    page = visit("/new").page
    text = "model: tiny\nfamily: qwen\nstage: sft\ntraining: {learning_rte: 1e-3, epochs: 2}\n"
    page.get_by_label("Text in YAML").fill(text)
    page.get_by_role("button", name="Begin with this recipe").click()
    page.wait_for_url("**/plan**")
    expect(page.locator("#problems")).to_contain_text("learning_rate")
    step(page, "Method")
    expect(field(page, "training.epochs")).to_have_value("2")
    found = visit("/new")
    found.expected = ("Failed to load resource: the server responded with a status of 4",)
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n"
        for old, new in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
    )
    found.page.get_by_label("Text in YAML").fill(bomb)
    found.page.get_by_role("button", name="Begin with this recipe").click()
    expect(found.page.locator(".box.bad")).to_be_visible()


def test_14_a_draft_is_kept(blank: Page) -> None:
    change(blank, "model", "tiny")
    address = blank.url
    blank.reload()
    expect(blank.locator('[id="f-model"]')).to_have_value("tiny")
    step(blank, "Data")
    blank.go_back()
    expect(blank.locator('[id="f-model"]')).to_have_value("tiny")
    context = blank.context
    blank.close()
    again = context.new_page()
    again.goto(address)
    expect(again.locator('[id="f-model"]')).to_have_value("tiny")


@pytest.mark.slow
def test_15_the_preview_shows_what_is_trained(
    visit: Visit, workbench: Workbench, blank: Page
) -> None:
    rows = (workbench.folder / "data/greetings.jsonl").read_text("utf-8")
    broken = workbench.folder / "data/broken.jsonl"
    broken.write_text(rows + '{"instruction": "Say"\n', encoding="utf-8")
    change(blank, "model", "tiny")
    change(blank, "family.name", "qwen")
    step(blank, "Data")
    change(blank, "data.0.path", "data/broken.jsonl")
    blank.get_by_role("button", name="Show rows").click()
    preview = blank.locator("#preview")
    expect(preview.locator("mark").nth(1)).to_contain_text("Hello, ", timeout=60_000)
    expect(preview).to_contain_text("broken.jsonl:11")
    share = float(preview.locator("[data-share]").get_attribute("data-share") or 0)
    assert 0 < share < 1


@pytest.mark.parametrize(
    "output",
    ["/etc/x", "../x", "", "x" * 300, "runs/greeter", "runs/a/b", "中文 名", "runs/中文 名"],
)
def test_16_outputs_are_accepted_or_refused_at_their_field(blank: Page, output: str) -> None:
    a_good_recipe(blank, output)
    blank.get_by_role("button", name="Check").click()
    blank.wait_for_url("**check=1**")
    problem = blank.locator('[data-field="output"] .problem')
    if output == "runs/中文 名":
        expect(blank.get_by_text("The recipe is good.")).to_be_visible()
    else:
        expect(problem).to_be_visible()
        expect(blank.get_by_role("button", name="Start")).to_be_disabled()


def test_17_data_outside_the_workspace_is_refused(blank: Page, workbench: Workbench) -> None:
    outside = workbench.folder.parent / "outside.jsonl"
    outside.write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
    link = workbench.folder / "data/link.jsonl"
    if not link.is_symlink():
        link.symlink_to(outside)
    step(blank, "Data")
    for path in (str(outside), "../outside.jsonl", "data/link.jsonl", "file:///etc/passwd"):
        change(blank, "data.0.path", path)
        blank.get_by_role("button", name="Check").click()
        blank.wait_for_url("**check=1**")
        problem = blank.locator('[data-field="data.0.path"] .problem')
        expect(problem).to_contain_text("not in the workspace")


@pytest.mark.slow
def test_18_19_smoke_and_plan(visit: Visit, own_workbench: Callable[..., Workbench]) -> None:
    """The plan's steps are those that the run then reports; a try leaves only its own folder."""
    server = own_workbench()
    page = visit("/new", server).page
    page.get_by_role("button", name="Empty recipe").click()
    a_good_recipe(page, "runs/tried")
    page.reload()
    planned = page.locator("[data-steps]")
    expect(planned).to_be_visible(timeout=60_000)
    steps = int(planned.get_attribute("data-steps") or 0)
    page.get_by_role("button", name="Try 3 steps").click()
    page.wait_for_url("**/runs/tried-smoke")
    expect(page.locator("#head")).to_have_attribute("data-status", "completed", timeout=90_000)
    expect(page.locator("#head")).to_contain_text("3 / 3")
    assert not (server.folder / "runs/tried").exists()
    page.go_back()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/tried")
    expect(page.locator("#head")).to_have_attribute("data-status", "completed", timeout=90_000)
    state = json.loads((server.folder / "runs/tried/run.json").read_text())
    assert state["stages"][0]["steps"] == steps
