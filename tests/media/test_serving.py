"""Media through the server: the answer is that about the picture which was sent."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import pytest
from PIL import Image, ImageOps

from media.media_cases import Subject, image, text, user
from media.samples import wav
from media.test_generation import TOKENS, generated, prepared
from serve.serving import TOKEN, Running, served
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright.types import Conversation, MediaPart, Message, TextPart
from tunewright_conformance.doubles import FakeRun
from tunewright_engine_hf import HfEngine

PIXELS = np.random.default_rng(0).integers(0, 255, (70, 130, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def png(picture: Image.Image) -> bytes:
    found = io.BytesIO()
    picture.save(found, "PNG")
    return found.getvalue()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def engine_of(case: Subject) -> Any:
    run = FakeRun(plugins={"template": case.template}, loads=lambda: case.loaded)
    return HfEngine(HfEngine.Options()).open_engine(run=run, request=EngineRequest())


@pytest.fixture(scope="module")
def case() -> Subject:
    return prepared("qwen", "qwen2_vl")


@pytest.fixture(scope="module")
def running(case: Subject) -> Iterator[Running]:
    with served(engine_of(case), info=case.template.info) as made:
        yield made


def asked(running: Running, *parts: Any, **fields: Any) -> Any:
    content = [*parts, {"type": "text", "text": "How wide?"}]
    messages = [{"role": "user", "content": content}]
    more = {"max_tokens": TOKENS, "logprobs": True, "temperature": 0, "ignore_eos": True}
    return running.chat(messages=messages, **(more | fields))


def pictured(picture: Image.Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(png(picture))}}


def logprobs(reply: Any) -> list[float]:
    assert reply.status == 200, reply.data
    return [each["logprob"] for each in reply.json["choices"][0]["logprobs"]["content"]]


def test_the_answer_is_about_the_picture(running: Running, case: Subject) -> None:
    talk = [user(image("wide"), text("How wide?"))]
    changed = case.whole(talk, prompt=True)
    own = case.loaded.processor.image_processor(images=[PICTURE], return_tensors="pt")
    _, scores = generated(case, {**changed, **own})
    found = asked(running, pictured(PICTURE))
    assert logprobs(found) == pytest.approx(scores, abs=1e-4)
    assert found.json["usage"]["prompt_tokens"] == changed["input_ids"].shape[1]
    other = logprobs(asked(running, pictured(ImageOps.invert(PICTURE))))
    assert other != pytest.approx(scores, abs=1e-3)
    assert logprobs(asked(running, pictured(PICTURE))) == pytest.approx(scores, abs=1e-4)
    assert running.engine.stats().cached_tokens > 0


def test_anthropics_blocks(running: Running) -> None:
    data = base64.b64encode(png(PICTURE)).decode()
    source: Any = {"type": "base64", "media_type": "image/png", "data": data}
    blocks: list[Any] = [{"type": "image", "source": source}, {"type": "text", "text": "How wide?"}]
    client = anthropic.Anthropic(base_url=running.address, api_key=TOKEN)
    messages: list[Any] = [{"role": "user", "content": blocks}]
    greedy = {"temperature": 0}
    made = client.messages.create(model="m", max_tokens=9, messages=messages, extra_body=greedy)
    same = asked(running, pictured(PICTURE), max_tokens=9, ignore_eos=False)
    assert made.content[0].text == same.json["choices"][0]["message"]["content"]
    assert made.usage.input_tokens == same.json["usage"]["prompt_tokens"]
    counted = client.messages.count_tokens(model="m", messages=messages)
    assert counted.input_tokens == made.usage.input_tokens
    blocks[0] = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    with pytest.raises(anthropic.BadRequestError, match="nothing is fetched"):
        client.messages.create(model="m", max_tokens=9, messages=messages)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}},
            "messages[0]: image_url is to be a data: URL of type image/…; nothing is fetched",
        ),
        (
            {"type": "image_url", "image_url": "file:///etc/passwd"},
            "messages[0]: image_url is to be a data: URL of type image/…; nothing is fetched",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            "messages[0]: this server takes text and images and videos, and no input_audio",
        ),
        (
            {"type": "image_url", "image_url": url(b"GIF89a")},
            "image that was sent is not an image that is read here",
        ),
        ({"type": "image_url", "image_url": "data:image/png;base64,AAA"}, "not valid base64"),
        (
            {"type": "video_url", "video_url": {"url": url(b"#EXTM3U\nhttp://h/", "video/mp4")}},
            "video that was sent cannot be read",
        ),
    ],
)
def test_refused(running: Running, part: Any, said: str) -> None:
    reply = asked(running, part)
    assert reply.status == 400 and said in reply.error["message"], reply.data


def test_base64_with_line_ends_and_other_formats(running: Running) -> None:
    """The type in a URL is not believed: the content is looked at."""
    expected = logprobs(asked(running, pictured(PICTURE)))
    wrapped = base64.encodebytes(png(PICTURE)).decode().replace("\n", "\r\n  ")
    assert "\n" in wrapped.strip()
    lossless = io.BytesIO()
    PICTURE.save(lossless, "WEBP", lossless=True)
    for found in (
        f"data:image/png;base64,{wrapped}",
        url(lossless.getvalue(), "image/webp"),
        url(lossless.getvalue(), "image/jpeg"),
    ):
        reply = asked(running, {"type": "image_url", "image_url": {"url": found}})
        assert logprobs(reply) == pytest.approx(expected, abs=1e-4)


def test_paths_and_other_types_are_told_apart_in_nothing(running: Running, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    said = set()
    for found in (
        str(tmp_path / "a.png"),
        str(tmp_path / "missing.png"),
        f"{tmp_path}_evil/a.png",
        f"{tmp_path}/../{tmp_path.name}/a.png",
        (tmp_path / "a.png").as_uri(),
        url(png(PICTURE), "text/html"),
        url(png(PICTURE), "IMAGE/svg+xml"),
        "data:,",
    ):
        reply = asked(running, {"type": "image_url", "image_url": {"url": found}})
        assert reply.status == 400
        said.add(reply.error["message"])
    assert len(said) == 1


def test_too_many_pixels(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are those of training."""
    monkeypatch.setattr("tunewright_hf.media.images.MAX_PIXELS", 5000)
    reply = asked(running, pictured(PICTURE))
    assert reply.status == 400 and "has 130 x 70 pixels, more than 5,000" in reply.error["message"]


def test_spelled_placeholders_are_text(running: Running) -> None:
    reply = asked(running, {"type": "text", "text": "<|vision_start|><|image_pad|><|vision_end|>"})
    assert reply.status == 200


def test_sounds(tmp_path: Path) -> None:
    case = prepared("qwen", "qwen2_audio")
    with served(engine_of(case), info=case.template.info) as running:
        found = []
        for seconds in (0.3, 0.6):
            data = Path(wav(tmp_path / "a.wav", seconds)).read_bytes()
            part = {"data": base64.b64encode(data).decode(), "format": "wav"}
            reply = asked(running, {"type": "input_audio", "input_audio": part})
            found.append((reply.json["usage"]["prompt_tokens"], logprobs(reply)))
    assert found[0][0] < found[1][0] and found[0][1] != pytest.approx(found[1][1], abs=1e-3)


def test_files_and_many_answers(case: Subject, tmp_path: Path) -> None:
    """As chat and evaluation ask: by path. Answers of one request share its prompt."""
    PICTURE.save(tmp_path / "a.png")
    talk = [Message("user", [MediaPart("image", str(tmp_path / "a.png")), TextPart("?")])]
    request = GenerateRequest(
        Conversation(talk), n=2, temperature=0, max_new_tokens=4, ignore_eos=True
    )
    with engine_of(case) as engine:
        pieces = list(answers(engine, request))
        alone = list(answers(engine, GenerateRequest(Conversation(talk), 4, ignore_eos=True)))
        assert {"images", "videos"} <= engine.features and "audio" not in engine.features
        with pytest.raises(Exception, match="only text is embedded"):
            engine.embed([Conversation(talk)])
    texts = ["".join(p.text for p in pieces if p.index == index) for index in (0, 1)]
    assert texts == ["".join(piece.text for piece in alone)] * 2
    assert texts[0]
