"""Recipes through the whole product: the answer changes with the picture."""

import json
import wave
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import tunewright
from tunewright import registry
from tunewright.types import (
    Conversation,
    LoadedModel,
    MediaPart,
    Message,
    TemplateRequest,
    TextPart,
)
from tunewright_conformance.bench import load_model
from tunewright_hf.batching.collators import Padded
from tunewright_hf.media.collation import media_rows
from tunewright_hf.media.decode import measure
from tunewright_hf.tokenization.encode import Tokeniser

COLOURS = {"Red": (220, 30, 30), "Blue": (30, 30, 220)}
TONES = {"Low": 300.0, "High": 2500.0}  # Hz
QUESTION = "Which colour?"


def pictures(folder: Path, count: int) -> Path:
    """A dataset of `count` pictures of each colour, in sizes of their own."""
    rows = []
    for number in range(count):
        for name in COLOURS:
            path = picture(folder / f"{name}{number}.png", name, number)
            parts = [
                {"type": "image_url", "image_url": {"url": path.name}},
                {"type": "text", "text": QUESTION},
            ]
            answer = {"role": "assistant", "content": f"{name}."}
            rows.append({"messages": [{"role": "user", "content": parts}, answer]})
    return _written(folder / "colours.jsonl", rows)


def picture(path: Path, name: str, number: int) -> Path:
    shade = tuple(part + 3 * number for part in COLOURS[name])
    Image.new("RGB", (40 + 9 * number, 90 - 7 * number), shade).save(path)
    return path


def clips(folder: Path, count: int) -> Path:
    """Videos that are red or blue, of several lengths."""
    names = {name: partial(clip, name=name) for name in COLOURS}
    return _asked(folder, "video", ".mp4", names, count)


def clip(path: Path, name: str, number: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.full((48, 64, 3), COLOURS[name], np.uint8)
        for _ in range(20 + 5 * number):
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def sounds(folder: Path, count: int) -> Path:
    """Low and high tones, of several lengths."""
    names = {name: partial(sound, name=name) for name in TONES}
    return _asked(folder, "audio", ".wav", names, count)


def sound(path: Path, name: str, number: int) -> Path:
    times = np.arange(int((0.5 + 0.1 * number) * 16_000)) / 16_000
    wave_ = (np.sin(2 * np.pi * (TONES[name] + 20 * number) * times) * 12_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(wave_.tobytes())
    return path


def _asked(folder: Path, kind: str, ending: str, make: dict[str, Any], count: int) -> Path:
    rows = []
    for number in range(count):
        for name, one in make.items():
            path = one(folder / f"{name}{number}{ending}", number=number)
            said = [("human", f"<{kind}>{QUESTION}"), ("gpt", f"{name}.")]
            talk = [{"from": role, "value": value} for role, value in said]
            rows.append({"conversations": talk, f"{kind}s": [path.name]})
    return _written(folder / f"{kind}.jsonl", rows)


def _written(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def recipe(folder: Path, **more: Any) -> dict[str, Any]:
    training = {
        "learning_rate": 3e-3,
        "epochs": 12,
        "per_device_train_batch_size": 4,
        "max_length": 256,
        "dataloader_workers": 0,
    }
    return {
        "model": "tiny",
        "family": {"name": "qwen", "tiny_variant": "qwen2_vl", "train_projector": True},
        "adapter": "full",
        "data": more.pop("data", None) or [{"path": str(pictures(folder, 6))}],
        "stage": "sft",
        "training": training | more.pop("training", {}),
        "output": str(folder / "run"),
        **more,
    }


def answer(loaded: LoadedModel, kind: Any, path: Path) -> str:
    """The model's greedy answer about a medium."""
    entry = registry.load(registry.find("template", str(loaded.template)))
    template = entry(entry.Options(**loaded.template_options), "")
    tokeniser = Tokeniser(loaded.tokenizer, template.info)
    media = media_rows(loaded)
    assert media is not None
    asked = [Message("user", [MediaPart(kind, str(path)), TextPart(QUESTION)])]
    request = TemplateRequest(Conversation(asked), True, tokeniser.special_tokens)
    rendered = template.format_template(request)
    ids = tokeniser.encode_prompt(media.media.expand(rendered, [measure(kind, str(path))]))
    part = {"kind": kind, "path": str(path)}
    inputs = Padded(0, media=media)([{"input_ids": ids, "labels": ids, "media": [part]}])["inputs"]
    with torch.no_grad():
        found = loaded.model.eval().generate(**inputs, max_new_tokens=6, do_sample=False)
    said: str = loaded.tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True)
    return said


def saved(folder: Path) -> LoadedModel:
    """The result, with the processor from its folder."""
    assert (folder / "run/model/processor_config.json").is_file()
    return load_model(
        registry.find("family", "qwen"), None, folder, model=str(folder / "run/model")
    )


@pytest.mark.slow
def test_pictures(tmp_path: Path) -> None:
    """Packed; padded rows are those of test_rollouts."""
    tunewright.train(recipe(tmp_path, stage={"name": "sft", "packing": True}))
    loaded = saved(tmp_path)
    for name in COLOURS:
        path = picture(tmp_path / f"new {name}.png", name, 4)
        assert answer(loaded, "image", path) == f"{name}."


@pytest.mark.slow
def test_videos(tmp_path: Path) -> None:
    data = [{"path": str(clips(tmp_path, 4))}]
    tunewright.train(recipe(tmp_path, data=data))
    loaded = saved(tmp_path)
    for name in COLOURS:
        assert answer(loaded, "video", clip(tmp_path / f"new {name}.mp4", name, 5)) == f"{name}."


@pytest.mark.long
def test_sounds(tmp_path: Path) -> None:
    family = {"name": "qwen", "tiny_variant": "qwen2_audio", "train_projector": True}
    data = [{"path": str(sounds(tmp_path, 4))}]
    training = {"epochs": 16}
    options = {"train_tower": True}
    tunewright.train(recipe(tmp_path, data=data, family=family | options, training=training))
    loaded = saved(tmp_path)
    for name in TONES:
        assert answer(loaded, "audio", sound(tmp_path / f"new {name}.wav", name, 2)) == f"{name}."
