"""Loss and gradients of rows with media: alone, padded, and packed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

from media.media_cases import (
    MEDIA,
    TALKS,
    Subject,
    assistant,
    every_twin,
    image,
    parts,
    subject,
    text,
    user,
)
from tunewright import RecipeError, RunError
from tunewright.types import Message
from tunewright_hf.batching.collators import Packed, Padded, check_packing, check_rows_apart
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.media.collation import MediaRows, media_rows
from tunewright_hf.media.expander import Medium, noise

PLAIN = [user(text("How are you?")), assistant("Fine.")]
TWINS = every_twin()
#: twins whose packed rows would differ: check_rows_apart refuses them
MIXING = {"gemma3_media", "paligemma", "paligemma2", "mllama", "qwen3_5_media", "qwen3_5_moe_media"}


class FromMemory(MediaRows):
    """Reads the media of a test in place of files."""

    case: Subject

    def _read(self, part: Any) -> Any:
        return self.case.medium(part["path"]) if isinstance(part, dict) else super()._read(part)


def collated(case: Subject) -> FromMemory:
    made: Any = media_rows(case.loaded)
    made.__class__, made.case = FromMemory, case
    return made


def row(case: Subject, talk: list[Message]) -> dict[str, Any]:
    found = case.encode(talk)
    media = [{"kind": part.kind, "path": part.path} for part in parts(talk)]
    return {"input_ids": found.input_ids, "labels": found.labels, "media": media}


TALL = [user(image("tall"), text("How tall?")), assistant("Very.")]


def rows(case: Subject) -> list[dict[str, Any]]:
    """Rows that a batch of this model may have: for most, of all sorts."""
    if case.loaded.media_inputs:  # see the functions that they are
        if case.takes([*TALKS["equal_videos"]]):
            return [row(case, talk) for talk in (TALKS["images"], PLAIN, TALKS["lines"])]
        return [row(case, talk) for talk in (TALKS["question"], TALL)]
    names = ("images", "audio", "equal_videos", "lines")
    talks = [TALKS[name] for name in names if case.takes(TALKS[name])][:2]
    more = [TALL] if case.takes(TALL) else []
    return [row(case, talk) for talk in (talks[0], PLAIN, *talks[1:], *more)]


def run(case: Subject, batches: Sequence[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Sum of the losses of batches, and gradients."""
    model = case.loaded.model.train()
    model.requires_grad_(True)
    model.zero_grad()
    loss, total = CausalLoss(model), 0.0
    for batch in batches:
        each, found = loss(model, batch["inputs"], batch["labels"], None)
        each.backward()
        total += float(found)
    return total, {
        name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None
    }


def assert_equal(one: Any, other: Any) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    largest = max(float(each.abs().max()) for each in one[1].values())
    for name, each in one[1].items():
        difference = float((each - other[1].get(name, torch.zeros_like(each))).abs().max())
        assert difference <= 2e-5 * largest, name


@pytest.mark.parametrize(("family", "twin"), TWINS)
def test_padded_as_alone(family: str, twin: str) -> None:
    case = subject(family, twin)
    padded, made = Padded(0, media=collated(case)), rows(case)
    alone = run(case, [padded([each]) for each in made])
    assert_equal(alone, run(case, [padded(made)]))
    assert_equal(alone, run(case, [padded(made[::-1])]))


@pytest.mark.parametrize(("family", "twin"), TWINS)
def test_packed_as_alone(family: str, twin: str) -> None:
    """Or the check refuses it, which tries a row with a picture."""
    case = subject(family, twin)
    media, made = collated(case), rows(case)
    if twin.startswith("minicpmv4"):
        with pytest.raises(RecipeError, match="in which packed rows see each other"):
            check_packing(case.loaded.model.config)
        return
    if twin in MIXING:
        with (
            filled(case.loaded.model),
            pytest.raises(RecipeError, match="lets packed rows see each other"),
        ):
            check_rows_apart(case.loaded.model, media)
        return
    check_rows_apart(case.loaded.model, media)
    alone = run(case, [Padded(0, media=media)([each]) for each in made])
    assert_equal(alone, run(case, [Packed(media)(made)]))
    assert_equal(alone, run(case, [Packed(media)(made[::-1])]))


def test_rows_are_apart_under_autocast() -> None:
    """Sums of other lengths are rounded differently."""
    case = subject("qwen", "qwen2_vl")
    with torch.autocast("cpu", torch.bfloat16):
        check_rows_apart(case.loaded.model, collated(case))
    case = subject("gemma", "gemma3_media")
    with (
        filled(case.loaded.model),
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RecipeError, match="lets packed rows see each other"),
    ):
        check_rows_apart(case.loaded.model, collated(case))


@pytest.mark.parametrize(("family", "twin"), TWINS)
def test_the_medium_counts(family: str, twin: str) -> None:
    """Control: with other media the loss is another."""
    case = subject(family, twin)
    media = collated(case)
    (one, *_), other = rows(case), collated(case)
    other._read = lambda part: _other(case.medium(part["path"]))  # type: ignore[method-assign]
    with filled(case.loaded.model):
        before, after = (run(case, [Padded(0, media=each)([one])])[0] for each in (media, other))
    assert abs(before - after) > 1e-6 * before


@contextmanager
def filled(model: Any) -> Iterator[None]:
    """Small numbers in place of zeros: some projectors and gates are zero at the start."""
    named = model.named_parameters()
    zeros = [each for name, each in named if not name.endswith("bias") and not each.any()]
    for each in zeros:
        each.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    try:
        yield
    finally:
        for each in zeros:
            each.data.zero_()


def _other(medium: Medium) -> Medium:
    if medium.shape.kind == "image":
        return replace(medium, content=ImageOps.invert(medium.content))
    return replace(medium, content=noise(medium.shape, 99))


def test_medium_in_every_batch() -> None:
    """A rank without media runs the towers too, and trains as it would without."""
    case = subject("qwen", "qwen2_vl")
    media, made = collated(case), [row(case, PLAIN), row(case, PLAIN[:1] + TALL[1:])]
    always = collated(case)
    always.in_every_batch = True
    for collator in (Padded(0, media=media), Packed(media)):
        other = replace(collator, media=always)
        assert "pixel_values" in other(made)["inputs"]
        assert "pixel_values" not in collator(made)["inputs"]
        without, found = run(case, [collator(made)]), run(case, [other(made)])
        assert found[1].keys() > without[1].keys()  # of the towers: zero
        assert_equal(found, without)


@pytest.mark.parametrize(
    ("family", "twin", "dtype"),
    [("qwen", "qwen2_vl", torch.bfloat16), ("llama", "llama4_media", torch.float32)],
)
def test_tensors_have_the_models_type(family: str, twin: str, dtype: torch.dtype) -> None:
    """Pixels are cast where they are made, so half as much goes from a worker to the model. Llama
    4's processor makes bfloat16."""
    case = subject(family, twin)
    made = collated(case)
    assert case.loaded.model.dtype == made.dtype == torch.float32
    made.dtype = dtype
    inputs = Padded(0, media=made)([row(case, TALL)])["inputs"]
    assert inputs["pixel_values"].dtype == dtype
    assert {each.dtype for each in inputs.values()} == {dtype, torch.int64}


def test_changed_file(tmp_path: Path) -> None:
    """A file that has another size than when it was prepared is found out."""
    case = subject("qwen", "qwen2_vl")
    talk = [user(image("wide"), text("?")), assistant("!")]
    Image.new("RGB", (60, 200)).save(tmp_path / "wide.png")
    made = row(case, talk) | {"media": [{"kind": "image", "path": "wide.png"}]}
    media = media_rows(case.loaded, tmp_path)
    with pytest.raises(RunError, match=r"wide.png: takes \d+ tokens, .* changed"):
        Padded(0, media=media)([made])
    assert MEDIA["wide"][0].width == 130
    Image.new("RGB", (130, 70)).save(tmp_path / "wide.png")
    assert "pixel_values" in Padded(0, media=media)([made])["inputs"]


def test_no_mixed_batches() -> None:
    """Llama 3.2 Vision: tokens before an image attend to the slots of missing ones. GLM-4V counts
    videos as images."""
    case = subject("llama", "mllama")
    made = [row(case, TALKS["question"]), row(case, PLAIN)]
    with pytest.raises(RunError, match="rows of a batch have 0 to 1 images"):
        Padded(0, media=collated(case))(made)
    assert "pixel_values" not in Padded(0, media=collated(case))(made[1:])["inputs"]
    case = subject("chatglm", "glm4v")
    made = [row(case, TALKS["question"]), row(case, TALKS["videos"])]
    with pytest.raises(RunError, match="no batch with images and videos"):
        Padded(0, media=collated(case))(made)
