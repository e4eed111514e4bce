"""Checks 7 to 19: a new run, from an empty draft to the queue."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page, expect

from browser.driver import Opened
from browser.workbench import Workbench
from tunewright_web.form import installed

Visit = Callable[..., Opened]
RECIPE = {
    "model": "tiny",
    "family": "qwen",
    "template": "qwen3",
    "data": [{"path": "data/greetings.jsonl"}],
    "stage": "sft",
    "training": {"max_steps": 3, "max_length": 256},
    "output": "runs/new-one",
}


def begun(workbench: Workbench, **changes: Any) -> str:
    """Path of the wizard of a draft."""
    recipe = {key: value for key, value in {**RECIPE, **changes}.items() if value is not None}
    status, made = workbench.api("/drafts", {"recipe": recipe})
    assert status == 201, made
    return f"/new/{made['id']}"


def field(page: Page, name: str) -> Any:
    return page.locator(f'[id="f-{name}"]')


def shown(page: Page) -> Any:
    """The recipe that the page shows."""
    return yaml.safe_load(page.locator("#recipe pre").inner_text())


def change(page: Page, name: str, text: str) -> None:
    """Type into a field and leave it; wait until it is kept."""
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        field(page, name).fill(text)
        field(page, name).press("Tab")


def test_07_every_plugin_is_offered(visit: Visit, workbench: Workbench) -> None:
    page = visit(f"{begun(workbench)}/method").page
    form = installed()
    for key in ("adapter", "quantizer", "stages.0", "optimizer", "scheduler", "engine"):
        names = (
            field(page, f"{key}.name")
            .locator("option")
            .evaluate_all("all => all.map(each => each.value).filter(Boolean)")
        )
        assert names == list(form.sections[key.partition(".")[0]].plugins)


def test_08_choosing_an_adapter_swaps_its_options(visit: Visit, workbench: Workbench) -> None:
    page = visit(f"{begun(workbench)}/method").page
    field(page, "adapter.name").select_option("lora")
    expect(field(page, "adapter.rank")).to_be_visible()
    change(page, "adapter.rank", "16")
    page.locator('[id="d-adapter"] > summary').click()
    field(page, "adapter.dora").select_option("true")
    expect(page.locator("#recipe pre")).to_contain_text("dora: true")
    expect(page.locator('[id="d-adapter"]')).to_have_attribute("open", "")
    field(page, "adapter.name").focus()
    field(page, "adapter.name").select_option("miss")
    expect(field(page, "adapter.dora")).to_have_count(0)
    expect(field(page, "adapter.rank")).to_have_value("16")
    expect(field(page, "adapter.name")).to_be_focused()
    assert shown(page)["adapter"] == {"name": "miss", "rank": 16}


def test_09_10_the_file_is_the_recipe_that_is_shown(
    visit: Visit, workbench: Workbench, tmp_path: Any
) -> None:
    page = visit(f"{begun(workbench)}/plan").page
    expect(page.get_by_text("The recipe is good")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    file = workbench.folder / "downloaded.yaml"
    download.value.save_as(file)
    assert file.read_text() == page.locator("#recipe pre").inner_text().rstrip("\n") + "\n"
    assert yaml.safe_load(file.read_text()) == RECIPE
    command = [sys.executable, "-m", "tunewright", "recipe", "check", file.name]
    done = subprocess.run(
        command, cwd=workbench.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_11_two_mistakes_and_the_way_to_them(visit: Visit, workbench: Workbench) -> None:
    draft = begun(workbench, training={"learning_rate": -1}, adapter={"name": "lora", "rank": 0})
    page = visit(f"{draft}/method").page
    page.get_by_role("button", name="Check").click()
    page.wait_for_url("**check=1**")
    summary = page.locator("#problems")
    expect(summary).to_be_focused()
    expect(summary.get_by_role("link")).to_have_count(2)
    for name in ("adapter.rank", "training.learning_rate"):
        summary.get_by_role("link", name=name).click()
        expect(field(page, name)).to_be_focused()
        expect(field(page, name)).to_have_attribute("aria-invalid", "true")
    change(page, "training.learning_rate", "1e-4")
    expect(summary.get_by_role("link")).to_have_count(1)
    assert shown(page)["training"] == {"learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("text", "said"), [("1,000", "write 1000"), ("NaN", "a number"), ("x", "")]
)
def test_12_numbers_are_refused_or_read_as_shown(
    visit: Visit, workbench: Workbench, text: str, said: str
) -> None:
    page = visit(f"{begun(workbench)}/method").page
    change(page, "training.learning_rate", text)
    problem = page.locator('[id="p-training.learning_rate"]')
    expect(problem).to_contain_text(said)
    expect(field(page, "training.learning_rate")).to_have_value(text)
    assert "learning_rate" not in shown(page)["training"]


def test_13_a_recipe_is_uploaded(visit: Visit, workbench: Workbench, tmp_path: Any) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, "adapter": {"name": "lora", "ranck": 8}}))
    page = visit("/new").page
    page.locator("#file").set_input_files(file)
    expect(page.locator("#text")).to_have_value(re.compile("ranck"))
    page.get_by_role("button", name="Begin with this recipe").click()
    page.wait_for_url("**/plan")
    expect(page.locator("#problems")).to_contain_text("did you mean 'rank'?")


def test_14_a_half_filled_form_is_there_again(visit: Visit, workbench: Workbench) -> None:
    page = visit("/new").page
    page.get_by_role("button", name="Empty recipe").click()
    page.wait_for_url("**/model")
    change(page, "model", "half/filled")
    page.reload()
    expect(field(page, "model")).to_have_value("half/filled")
    page.get_by_role("button", name="Next").click()
    page.wait_for_url("**/data")
    page.go_back()
    expect(field(page, "model")).to_have_value("half/filled")
    page.close()
    again = visit("/new").page
    again.get_by_role("link", name="half/filled").first.click()
    expect(field(again, "model")).to_have_value("half/filled")


def test_15_the_preview_marks_what_is_trained(visit: Visit, workbench: Workbench) -> None:
    rows = (workbench.folder / "data/greetings.jsonl").read_text()
    (workbench.folder / "data/broken.jsonl").write_text(rows + '{"instruction": 5}\n')
    page = visit(f"{begun(workbench, data=[{'path': 'data/broken.jsonl'}])}/data").page
    page.get_by_role("button", name="Show rows").click()
    found = page.locator("#preview [data-state]")
    expect(found).to_have_attribute("data-state", "done", timeout=120_000)
    expect(found).to_contain_text(f"data/broken.jsonl:{len(rows.splitlines()) + 1}")
    assert page.locator("#preview mark").nth(1).inner_text().endswith("Hello, Ann!<|im_end|>")
    share = float(found.get_attribute("data-share") or 0)
    assert f"{100 * share:.1f} %" in found.inner_text() and 0 < share < 1


def test_15_a_file_is_uploaded_and_used(visit: Visit, workbench: Workbench, tmp_path: Any) -> None:
    file = tmp_path / "my rows.jsonl"
    file.write_text('{"instruction": "a", "output": "b"}\n')
    page = visit(f"{begun(workbench, data=None)}/data").page
    page.locator("#upload").set_input_files(file)
    expect(field(page, "data.0.path")).to_have_value("uploads/my rows.jsonl")
    expect(page.locator("#recipe pre")).to_contain_text("uploads/my rows.jsonl")
    assert (workbench.folder / "uploads/my rows.jsonl").read_text() == file.read_text()


@pytest.mark.parametrize(  # check 17, paths of data, has its table in tests/web/test_new_paths.py
    ("name", "said"),
    [("/etc/x", "runs/NAME"), ("../x", "runs/NAME"), ("runs/greeter", "there already")],
)
def test_16_names_that_are_refused(
    visit: Visit, workbench: Workbench, name: str, said: str
) -> None:
    page = visit(f"{begun(workbench)}/plan").page
    change(page, "output", name)
    expect(page.locator('[id="p-output"]')).to_contain_text(said)
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    change(page, "output", "runs/中文 名")
    expect(page.locator('[id="p-output"]')).to_have_count(0)
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


def test_18_smoke_runs_on_the_twin(visit: Visit, workbench: Workbench) -> None:
    page = visit(f"{begun(workbench, output='runs/smoked')}/plan").page
    page.get_by_role("button", name="Try 3 steps").click()
    page.wait_for_url("**/runs/smoked-smoke")
    expect(page.get_by_role("main")).to_contain_text("completed", timeout=120_000)
    assert (workbench.folder / "runs/smoked-smoke/run.json").is_file()
    assert not (workbench.folder / "runs/smoked").exists()


def test_19_the_plan_is_shown(visit: Visit, workbench: Workbench) -> None:
    page = visit(f"{begun(workbench)}/plan").page
    expect(page.locator("#plan [data-steps]")).to_have_text("3", timeout=120_000)


def test_the_filter_finds_options_by_name(visit: Visit, workbench: Workbench) -> None:
    page = visit(f"{begun(workbench)}/method").page
    page.locator("#filter").fill("max grad")
    expect(field(page, "training.max_grad_norm")).to_be_visible()
    expect(field(page, "training.learning_rate")).to_be_hidden()
    page.locator("#filter").fill("no such thing")
    expect(page.get_by_text("No option has this")).to_be_visible()
    page.locator("#filter").fill("")
    expect(field(page, "training.learning_rate")).to_be_visible()
    expect(field(page, "training.max_grad_norm")).to_be_hidden()


@pytest.mark.parametrize("step", ["model", "data", "method", "plan"])
@pytest.mark.parametrize(("width", "dark", "language"), [(390, True, "zh"), (1440, False, "en")])
def test_47_48_every_step(
    visit: Visit, workbench: Workbench, step: str, width: int, dark: bool, language: str
) -> None:
    draft = begun(workbench, adapter={"name": "lora", "rank": 0}, output="runs/greeter")
    found = visit(f"{draft}/{step}?check=1", width=width, dark=dark, language=language)
    found.page.wait_for_load_state("networkidle")
    found.assert_accessible()
    found.assert_fits()
    primary = found.page.locator("button.primary")
    expect(primary).to_be_in_viewport()
