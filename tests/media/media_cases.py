"""Conversations with media for the tests of models that take them, and what the model's own
processor makes of them."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from media.media_talk import talk
from tunewright import registry
from tunewright.registry import Entry
from tunewright.types import (
    Conversation,
    LoadedModel,
    MediaPart,
    Message,
    Rendered,
    TemplateRequest,
    TextPart,
    ToolCall,
)
from tunewright_conformance.bench import load_model
from tunewright_conformance.subjects import package_of
from tunewright_hf.media.expander import MediaProcessor, Medium
from tunewright_hf.media.shapes import RATE, Shape
from tunewright_hf.tokenization.encode import Encoded, Tokeniser

#: twins that are tried every time: each way to write media once
USUAL = {
    *("qwen2_vl", "pixtral", "gemma3_media", "internvl", "qwen2_audio", "qwen3_vl"),
    *("paligemma", "mllama", "glm4v", "llava_onevision", "qwen3_5_media"),
}


def noise(seed: int, *size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


#: name → medium, whose frames are chosen by the processor
IMAGES = {
    "wide": (Shape("image", width=130, height=70), 1),
    "tall": (Shape("image", width=50, height=110), 2),
    "small": (Shape("image", width=30, height=30), 3),
}
VIDEOS = {
    "short": (Shape("video", width=64, height=48, frames=90, fps=30.0), 4),
    "long": (Shape("video", width=64, height=48, frames=50, fps=12.5), 5),
    "same": (Shape("video", width=80, height=40, frames=90, fps=30.0), 6),
    "slow": (Shape("video", width=64, height=48, frames=1200, fps=30.0), 9),
}
AUDIO = {
    "word": (Shape("audio", samples=RATE // 2), 7),
    "sentence": (Shape("audio", samples=3 * RATE + 100), 8),
}
MEDIA = IMAGES | VIDEOS | AUDIO


def image(name: str) -> MediaPart:
    return MediaPart("image", name)


def video(name: str) -> MediaPart:
    return MediaPart("video", name)


def audio(name: str) -> MediaPart:
    return MediaPart("audio", name)


def text(said: str) -> TextPart:
    return TextPart(said)


def user(*parts: Any) -> Message:
    return Message("user", list(parts))


def assistant(said: str) -> Message:
    return Message("assistant", said)


#: name → conversation, of which each processor gets those with media that it takes
TALKS = {
    "images": [
        user(image("wide"), image("tall"), text("Which is wider?")),
        assistant("The first."),
        user(text("And this?")),
        assistant("I see none."),
        user(text("Here it is: "), image("small"), text(" – how large?")),
        assistant("Small."),
    ],
    "image_in_system": [
        Message("system", [text("Compare with "), image("tall")]),
        user(image("wide"), text("Is it the same?")),
        assistant("No."),
    ],
    "lines": [
        user(text("First\n\n"), image("wide"), text("\n\n\nthen\n"), image("wide"), text("\nlast")),
        assistant("Both\nare equal.\n"),
    ],
    "videos": [user(video("short"), video("long"), text("What changes?")), assistant("The light.")],
    "image_video": [user(image("wide"), video("short"), text("Same?")), assistant("No.")],
    "video_image": [user(video("short"), image("wide"), text("Same?")), assistant("No.")],
    "equal_videos": [
        user(video("short"), text("and "), video("same")),
        assistant("Equal."),
    ],
    "question": [user(image("wide"), text("How wide?")), assistant("Rather wide.")],
    "image_in_tool_result": [
        user(text("What is behind the house?")),
        Message("assistant", "", tool_calls=[ToolCall("camera", {"place": "garden"})]),
        Message("tool", [text("Taken: "), image("tall"), text(" just now.")]),
        assistant("A tree."),
    ],
    "audio": [user(audio("word"), audio("sentence"), text("Who?")), assistant("A child.")],
    "all": [
        user(audio("word"), image("small"), text("and"), video("short"), text("!")),
        assistant("Loud."),
    ],
}


def families_with_media() -> Iterator[tuple[Entry, str]]:
    from tunewright_hf.models.twins import specs

    for entry in registry.entries("family"):
        for name, twin in specs(package_of(entry)).items():
            if twin.processor:
                yield entry, name


def parts(messages: Iterable[Message]) -> list[MediaPart]:
    return [
        part
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if isinstance(part, MediaPart)
    ]


@dataclass
class Subject:
    """A tiny twin with its template."""

    loaded: LoadedModel
    media: MediaProcessor
    template: Any
    tokeniser: Tokeniser = field(init=False)

    def __post_init__(self) -> None:
        self.tokeniser = Tokeniser(self.loaded.tokenizer, self.template.info)

    def takes(self, messages: Iterable[Message]) -> bool:
        if self.loaded.template == "paligemma" and messages is not TALKS["question"]:
            return False  # has a form for one question alone
        if self.loaded.template == "qwen3_5" and messages is TALKS["image_in_system"]:
            return False  # refused: test_families.py
        return {part.kind for part in parts(messages)} <= self.media.tokens.keys()

    def render(self, messages: list[Message], prompt: bool = False) -> Rendered:
        request = TemplateRequest(Conversation(messages), prompt, self.tokeniser.special_tokens)
        return self.template.format_template(request)

    def medium(self, name: str) -> Medium:
        shape, seed = MEDIA[name]
        if shape.kind == "image":
            pixels = noise(seed, shape.height, shape.width)
            return Medium(shape, Image.fromarray(pixels))
        if shape.kind == "video":
            return Medium(
                shape, noise(seed, len(self.media.frames(shape)), shape.height, shape.width)
            )
        samples = np.random.default_rng(seed).normal(0, 0.1, shape.samples)
        return Medium(shape, samples.astype(np.float32))

    def encode(self, messages: list[Message]) -> Encoded:
        """As the product does: from shapes alone."""
        shapes = [MEDIA[part.path][0] for part in parts(messages)]
        return self.tokeniser.encode(self.media.expand(self.render(messages), shapes))

    def further(self, row: Encoded, tensors: dict[str, Any]) -> dict[str, Any]:
        """Inputs by token, with a first dimension of 1."""
        import torch

        types = self.media.token_types(row.input_ids)
        found: dict[str, Any] = {name: [each] for name, each in types.items()}
        if self.loaded.media_inputs:
            ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
            found |= self.loaded.media_inputs(
                {"input_ids": ids, **tensors}, labels, self.loaded.processor
            )
        return found

    def prompt(self, messages: list[Message]) -> list[int]:
        """Ids of the messages before an answer, as the product makes them."""
        shapes = [MEDIA[part.path][0] for part in parts(messages)]
        rendered = self.media.expand(self.render(messages, prompt=True), shapes)
        return self.tokeniser.encode_prompt(rendered)

    def whole(self, messages: list[Message], prompt: bool = False) -> Any:
        """Ids, assistant mask and tensors of the model's own processor on the real media. prompt:
        the messages are those before an answer."""
        found = [self.medium(part.path) for part in parts(messages)]
        if self.loaded.template == "paligemma":
            (question, *answers), images = messages, [each.content for each in found]
            asked = "".join(part.text for part in question.content if isinstance(part, TextPart))
            with warnings.catch_warnings():  # it gives tensors to NumPy
                warnings.simplefilter("ignore", DeprecationWarning)
                whole = self.loaded.processor(
                    text=["<image>" * len(images) + asked],
                    images=[images],
                    suffix=[answer.content for answer in answers] or None,
                    return_tensors="pt",
                )
            if answers:
                whole["assistant_masks"] = (whole["labels"] != -100).long()
            return whole
        given: dict[str, Any] = {"do_sample_frames": False}
        videos = [each.shape for each in found if each.shape.kind == "video"]
        if videos:
            from transformers.video_utils import VideoMetadata

            given["video_metadata"] = [
                VideoMetadata(
                    total_num_frames=shape.frames,
                    fps=shape.fps,
                    duration=shape.frames / shape.fps,
                    frames_indices=list(self.media.frames(shape)),
                )
                for shape in videos
            ]
        else:
            given = {}
        with warnings.catch_warnings():  # GLM-4V gives tensors to NumPy
            warnings.simplefilter("ignore", DeprecationWarning)
            return self.loaded.processor.apply_chat_template(
                talk(messages, [each.content for each in found]),
                chat_template=self.template.source,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                return_assistant_tokens_mask=not prompt,
                add_generation_prompt=prompt,
                processor_kwargs=given | {"add_special_tokens": False},
            )


@cache
def subject(family: str, twin: str) -> Subject:
    entry = registry.find("family", family)
    loaded = load_model(entry, twin, Path())
    found = registry.load(registry.find("template", loaded.template))
    template = found(found.Options(**loaded.template_options), loaded.template)
    return Subject(loaded, MediaProcessor(loaded.processor), template)


def every_case() -> list[Any]:
    """(family, twin, name of the conversation). Those of twins like others are long."""
    return [
        pytest.param(*each.values, name, id=f"{each.id}-{name}", marks=each.marks)
        for each in every_twin()
        for name in TALKS
    ]


def every_twin() -> list[Any]:
    """(family, twin). Those like others are long."""
    return [
        pytest.param(entry.name, twin, id=twin, marks=() if twin in USUAL else pytest.mark.long)
        for entry, twin in families_with_media()
    ]
