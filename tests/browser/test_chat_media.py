"""Check 42: images and audio in chats."""

import re
import struct
import subprocess
import sys
import wave
import zlib
from array import array
from collections.abc import Callable
from math import pi, sin
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from browser.driver import Opened
from browser.talker import begin_chat, loaded, say
from browser.workbench import ENVIRONMENT, Workbench

Visit = Callable[..., Opened]
Own = Callable[..., Workbench]
pytestmark = pytest.mark.slow


def chat_with(visit: Visit, server: Workbench, *words: str) -> Page:
    """A chat with a tiny model that is trained here, once it is loaded."""
    recipe = server.folder / "recipe.yaml"
    more = ["template=qwen", "training.max_steps=1", "output=runs/other", *words]
    command = [sys.executable, "-m", "tunewright", "train", str(recipe), *more]
    subprocess.run(command, cwd=server.folder, env=ENVIRONMENT, check=True)
    page = visit(begin_chat(server, {"run": "other"}, sampling={"max_tokens": 4}), server).page
    loaded(page)
    expect(page.locator("#attach")).to_be_visible()
    return page


def ask_about(page: Page, file: Path, marker: str) -> None:
    """Send a file, whose type the browser tells, and read the reply and the prompt."""
    page.locator("#files").set_input_files(file)
    expect(page.locator("#attached")).to_contain_text(file.name)
    say(page, "What is this?")
    expect(page.locator(".message.assistant .meta")).to_be_visible()
    expect(page.locator(".message.assistant .box.bad")).to_have_count(0)
    page.get_by_role("button", name="Raw prompt").click()
    expect(page.locator("#raw-prompt")).to_contain_text(marker)
    page.keyboard.press("Escape")


@pytest.mark.long
def test_42_a_model_that_takes_images_answers(
    visit: Visit, own_workbench: Own, tmp_path: Path
) -> None:
    """A run of a tiny Qwen2.5-VL."""
    page = chat_with(visit, own_workbench(), "family={name: qwen, tiny_variant: qwen2_5_vl}")
    file = tmp_path / "red.png"
    file.write_bytes(png(56))
    ask_about(page, file, "<|image_pad|>")
    expect(page.locator(".message.user img")).to_be_visible()


@pytest.mark.long
def test_42_a_model_that_takes_audio_answers(
    visit: Visit, own_workbench: Own, tmp_path: Path
) -> None:
    """A run of a tiny Qwen2-Audio. The message can be listened to again."""
    page = chat_with(visit, own_workbench(), "family={name: qwen, tiny_variant: qwen2_audio}")
    kinds = page.locator("#files").get_attribute("accept") or ""
    assert "audio/wav" in kinds and "image" not in kinds
    file = tmp_path / "tone.wav"
    tone(file)
    ask_about(page, file, "<|AUDIO|>")
    player = page.locator(".message.user audio")
    expect(player).to_be_visible()
    expect(player).to_have_js_property("duration", 1)  # decoded by the browser
    page.reload()
    expect(player).to_have_js_property("duration", 1)


def tone(path: Path) -> None:
    """A second of 440 Hz, 16,000 samples of 16 bits."""
    samples = [int(8000 * sin(2 * pi * 440 * n / 16_000)) for n in range(16_000)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(array("h", samples).tobytes())


def png(size: int = 1) -> bytes:
    """A red picture of so many pixels each way."""
    pieces = [(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))]
    lines = (b"\0" + b"\xff\0\0" * size) * size
    pieces += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in pieces
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_42_images_are_not_offered_to_a_model_that_takes_none(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    page = visit(begin_chat(workbench, scripted)).page
    loaded(page)
    expect(page.locator("#attach")).to_be_hidden()


def test_42_an_image_is_shown_and_sent(
    visit: Visit, workbench: Workbench, scripted: dict[str, str]
) -> None:
    """The page is told that the model takes images; the process, which knows better, refuses."""
    page = visit(begin_chat(workbench, scripted)).page

    def with_images(route: Route) -> None:
        answer = route.fetch()
        text = re.sub('data-features="[^"]*"', "data-features='[[\"images\"]]'", answer.text())
        route.fulfill(response=answer, body=text)

    page.route("**/engines", with_images)
    loaded(page)
    expect(page.locator("#attach")).to_be_visible(timeout=15_000)
    file = {"name": "red.png", "mimeType": "image/png", "buffer": png()}
    page.locator("#files").set_input_files([file])  # type: ignore[list-item]
    expect(page.locator("#attached")).to_contain_text("red.png")
    say(page, "What is this?")
    picture = page.locator(".message.user img")
    expect(picture).to_be_visible()
    assert picture.evaluate("each => each.naturalWidth") == 1
    expect(page.locator("#attached li")).to_have_count(0)
    expect(page.locator(".message.assistant .box.bad")).to_contain_text("text only")
