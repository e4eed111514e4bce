"""A server that stands for vLLM, and says what a test wants: tool calls, thinking, slow replies."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Page, expect
from tokenizers import Tokenizer

from browser.workbench import Workbench
from remote.stand_in_server import Wire, app
from tunewright_serve.server import bound_socket

__all__ = ["HOSTILE", "begin_chat", "loaded", "say", "talker"]

CALLS = """<tool_call>
{"name": "add", "arguments": {"a": 1, "b": 2}}
</tool_call>
<tool_call>
{"name": "add", "arguments": {"a": 3, "b": 4}}
</tool_call>"""
HOSTILE = (
    "<script>document.title = 'hit'</script> <img src=x onerror=\"document.title = 'hit'\"> "
    "\x1b[31mred\x1b[0m [link](javascript:document.title='hit') ![](http://example.com/a.png)"
)
#: last message of the user → reply
REPLIES = {
    "think": "<think>\nFirst I think.\n</think>\n\nThen I **answer**.",
    "table": "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1)\n```\n",
    "hostile": HOSTILE,
    "slow": "word " * 400,
}


@contextmanager
def talker(run: Path, kind: str = "vllm") -> Iterator[str]:
    """Serve as vLLM or SGLang, with the tokenizer of a trained run. Gives the address."""
    tokenizer = Tokenizer.from_file(str(run / "model/tokenizer.json"))

    async def brain(body: dict[str, Any]) -> AsyncIterator[tuple[int, dict[int, float]]]:
        prompt = tokenizer.decode(body["prompt"], skip_special_tokens=False)
        asked = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0].strip()
        reply = REPLIES.get(asked, f"You said: {asked}")
        if asked == "add":
            reply = CALLS
        elif "<tool_response>" in asked:
            results = re.findall(r"<tool_response>\s*(.*?)\s*</tool_response>", asked)
            reply = f"The sums are {' and '.join(results)}."
        for token in tokenizer.encode(reply, add_special_tokens=False).ids:
            await asyncio.sleep(0.05 if asked == "slow" else 0)
            yield token, {token: -0.5}
        yield body["stop_token_ids"][0], {}

    wire = Wire(kind, brain, ["greeter"], max_length=100_000)
    with bound_socket("127.0.0.1", 0) as bound:
        server = uvicorn.Server(
            uvicorn.Config(app(wire), log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def begin_chat(server: Workbench, *models: dict[str, Any], **more: Any) -> str:
    """Begin a chat by the API. Returns the path of its page."""
    status, found = server.api("/chats", {"models": list(models), **more})
    assert status == 201, found
    return f"/chat/{found['id']}"


def loaded(page: Page) -> None:
    expect(page.locator('.engine:not([data-state="ready"])')).to_have_count(0, timeout=90_000)


def say(page: Page, text: str) -> None:
    """Send a message with the keyboard, and wait for the end of the reply."""
    box = page.get_by_label("Message", exact=True)
    expect(page.locator("#composer")).to_have_attribute("data-turns", re.compile(r"\d"))
    turns = int(page.locator("#composer").get_attribute("data-turns") or 0)
    box.fill(text)
    box.press("Enter")
    expect(page.locator("#composer")).to_have_attribute(
        "data-turns", str(turns + 1), timeout=60_000
    )
