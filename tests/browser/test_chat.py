"""Checks 40, 41 and 43 to 45: chats with models, and with a server that says what a test wants."""

import json
import signal
from collections.abc import Callable

import psutil
import pytest
from playwright.sync_api import expect

from browser.driver import Opened
from browser.talker import HOSTILE, begin_chat, loaded, say, talker
from browser.workbench import Workbench

Visit = Callable[..., Opened]
Own = Callable[..., Workbench]
ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
}
pytestmark = pytest.mark.slow


def test_40_a_finished_run_answers(visit: Visit, workbench: Workbench) -> None:
    page = visit("/chat?run=greeter").page
    page.get_by_role("button", name="Start chat").click()
    page.wait_for_url("**/chat/*")
    engine = page.locator(".engine")
    expect(engine).to_have_attribute("data-state", "loading")
    expect(engine.get_by_role("progressbar")).to_be_visible()
    loaded(page)
    page.get_by_label("Max tokens").fill("24")
    with page.expect_navigation():
        page.get_by_role("button", name="Apply").click()
    expect(page.get_by_label("Max tokens")).to_have_value("24")
    say(page, "Say hello to Ann.")
    # such a small model may end in its thinking
    reply = page.locator(".message.assistant :is(.markdown, .thinking .plain)").first
    expect(reply).not_to_be_empty()
    text = reply.text_content()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("#composer")).to_have_attribute("data-turns", "2", timeout=60_000)
    assert reply.text_content() == text  # greedy decoding
    page.reload()
    expect(page.locator(".message.user > .plain")).to_have_text("Say hello to Ann.")
    assert reply.text_content() == text
    page.get_by_role("button", name="Raw prompt").click()
    expect(page.locator("#raw-prompt")).to_contain_text("<|im_start|>user\nSay hello to Ann.")
    assert len(page.locator("#raw-ids").inner_text().split()) > 5
    page.keyboard.press("Escape")
    stored = workbench.folder / ".tunewright/chats" / page.url.rpartition("/")[2] / "chat.json"
    assert json.loads(stored.read_text())["sides"][0][1]["finish"] in ("stop", "length")


def test_40_a_reply_streams_and_can_be_stopped(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    page = visit(begin_chat(workbench, scripted)).page
    loaded(page)
    page.get_by_label("Message", exact=True).fill("slow")
    page.get_by_role("button", name="Send").click()
    live = page.locator(".live .markdown")
    expect(live).to_contain_text("word word")
    page.reload()  # the reply goes on, and the page follows it again
    expect(live).to_contain_text("word word word")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".message.assistant .meta")).to_contain_text("stopped")
    kept = page.locator(".message.assistant .markdown").inner_text()
    assert 3 < kept.count("word") < 400
    page.get_by_role("button", name="Edit").click()
    box = page.get_by_label("Message", exact=True)
    expect(box).to_have_value("slow")
    say(page, "fast")
    expect(page.locator(".message.user > .plain")).to_have_text(["fast"])
    expect(page.locator(".message.assistant .markdown")).to_have_text("You said: fast")


def test_40_two_models_answer_side_by_side(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    page = visit(
        begin_chat(workbench, scripted, {"run": "greeter"}, sampling={"max_tokens": 24})
    ).page
    loaded(page)
    say(page, "Hello")
    expect(page.locator(".side .message.assistant")).to_have_count(2)
    first = page.locator(".side").first.locator(".markdown")
    expect(first).to_have_text("You said: Hello")
    expect(page.locator(".side .who")).to_have_text(["greeter (vllm)", "greeter"])


def test_41_tools_are_called_and_their_results_typed(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    found = visit(begin_chat(workbench, scripted))
    found.expected = ("Failed to load resource: the server responded with a status of 422",)
    page = found.page
    loaded(page)
    page.get_by_label("Tools").fill("[{]")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#notices")).to_contain_text("tools: no JSON")
    page.get_by_label("Tools").fill(json.dumps([ADD]))
    with page.expect_navigation():
        page.get_by_role("button", name="Apply").click()
    expect(page.locator("#notices")).to_be_empty()
    say(page, "add")
    expect(page.locator(".call")).to_have_count(2)
    expect(page.locator(".call").first).to_contain_text('"a": 1')
    results = page.get_by_label("Result of add")
    expect(results).to_have_count(2)
    results.nth(0).fill("3")
    results.nth(1).fill("7")
    page.get_by_role("button", name="Send results").click()
    answer = page.locator(".message.assistant .markdown").last
    expect(answer).to_have_text("The sums are 3 and 7.", timeout=30_000)


def test_40_thinking_is_folded_and_markdown_shown(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    page = visit(begin_chat(workbench, scripted)).page
    loaded(page)
    say(page, "think")
    thinking = page.locator(".message.assistant details.thinking")
    expect(thinking.locator(".plain")).to_be_hidden()
    thinking.locator("summary").click()
    expect(thinking.locator(".plain")).to_have_text("First I think.")
    expect(page.locator(".markdown strong")).to_have_text("answer")
    say(page, "table")
    expect(page.locator(".markdown td")).to_have_text(["1", "2"])
    expect(page.locator(".markdown pre")).to_have_text("print(1)\n")


def test_40_an_engine_is_chosen_in_the_form(visit: Visit, workbench: Workbench) -> None:
    """SGLang, at an address where it runs already."""
    with talker(workbench.folder / "runs/greeter", "sglang") as address:
        page = visit("/chat?run=greeter").page
        page.get_by_text("Other model, engine, address").first.click()
        page.get_by_label("Engine").first.select_option("sglang")
        page.get_by_label("Address").first.fill(address)
        page.get_by_role("button", name="Start chat").click()
        page.wait_for_url("**/chat/*")
        loaded(page)
        say(page, "Hello")
        expect(page.locator(".message.assistant .markdown")).to_have_text("You said: Hello")


def test_43_hostile_text_is_text(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    page = visit(begin_chat(workbench, scripted)).page
    loaded(page)
    say(page, "hostile")
    say(page, HOSTILE)
    title = page.title()
    assert "hit" not in title.split()
    expect(page.locator(".markdown").first).to_contain_text("<script>document.title")
    expect(page.locator(".markdown").first).to_contain_text("␛[31mred")
    expect(page.locator(".message.user > .plain").last).to_contain_text("<img src=x onerror")
    assert page.locator("#thread script, #thread img, #thread a[href^='javascript']").count() == 0
    page.get_by_label("Message", exact=True).fill("x" * 1_000_000)
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_contain_text("1,000,000 characters; at most 200,000")
    expect(page.locator(".message.user")).to_have_count(2)
    address = page.url.rpartition("/")[2]
    status, said = workbench.api(f"/chats/{address}/messages", {"content": "x" * 1_000_000})
    assert (status, said["hint"]) == (422, "at most 200,000 are taken")


def test_44_enter_while_composing_does_not_send(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    page = visit(begin_chat(workbench, scripted)).page
    loaded(page)
    box = page.get_by_label("Message", exact=True)
    box.focus()
    keys = page.context.new_cdp_session(page)
    keys.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    page.keyboard.press("Enter")
    expect(page.locator(".message.user")).to_have_count(0)
    box.fill("")
    keys.send("Input.insertText", {"text": "你好"})
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".message.user")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator(".message.user > .plain")).to_have_text("你好")
    expect(page.locator(".message.assistant .markdown")).to_contain_text("你好", timeout=30_000)


def test_45_a_model_that_fails_to_load_says_why(visit: Visit, workbench: Workbench) -> None:
    broken = workbench.folder / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "config.json").write_text('{"model_type": "no_such_model"}')
    page = visit("/chat").page
    page.get_by_label("Run, or other model").first.select_option("other")
    page.get_by_text("Other model, engine, address").first.click()
    page.get_by_label("Folder or hub id").first.fill("broken")
    page.get_by_role("button", name="Start chat").click()
    page.wait_for_url("**/chat/*")
    expect(page.locator(".engine")).to_have_attribute("data-state", "failed", timeout=60_000)
    expect(page.locator(".engine .box")).to_contain_text("no_such_model")
    expect(page.get_by_role("button", name="Load the model")).to_be_visible()
    page.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("button", name="Start chat")).to_be_visible()


def test_an_engine_ends_with_the_server(own_workbench: Callable[..., Workbench]) -> None:
    """Also with one that is killed, and cannot end it."""
    server = own_workbench()
    begin_chat(server, {"run": "greeter"})
    assert server.process is not None
    engines = psutil.Process(server.process.pid).children()
    assert len(engines) == 1
    server.stop(signal.SIGKILL)
    ended, _ = psutil.wait_procs(engines, 20)
    assert ended == engines
