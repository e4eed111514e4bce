"""Greedy answers about media equal transformers' generate on the inputs of the model's own
processor: alone, and while rows of text run beside them."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from PIL import ImageOps
from transformers import GenerationConfig

from media.media_cases import (
    TALKS,
    Subject,
    every_twin,
    parts,
    subject,
    text,
    user,
    video,
)
from tunewright.types import Message
from tunewright_hf.inference.rows import Row, Score
from tunewright_hf.inference.scheduler import Scheduler
from tunewright_hf.media.collation import media_rows
from tunewright_hf.media.expander import Medium
from tunewright_hf.media.prompts import prompt_media

TOKENS = 6
PLAIN = [user(text("How are you? And how is everybody?"))]


def questions(case: Subject) -> list[list[Message]]:
    """Up to an answer."""
    found = []
    for name in ("question", "images", "equal_videos", "image_video", "audio", "all"):
        if name == "images" and case.loaded.template == "ernie_vl":
            continue  # its processor joins the space before an earlier answer with its first word
        if case.takes(TALKS[name]):
            # more than one answer is of no use here
            found.append(TALKS[name][:-1])
    return found[:3]


Answer = tuple[list[int], list[float]]  # tokens, log-probabilities


def asked(case: Subject, talk: list[Message], *media: Medium) -> tuple[Row, Answer]:
    """A row, and what will be its answer. media: in place of the conversation's own."""
    ids, rows = case.prompt(talk), media_rows(case.loaded)
    assert rows is not None
    found = media or [case.medium(part.path) for part in parts(talk)]
    row = Row(ids, TOKENS, media=prompt_media(rows, ids, found), logprobs=0)
    scores: list[float] = []

    def keep(row: Row, token: int, score: Score | None) -> bool:
        assert score is not None and score.logprob is not None
        scores.append(score.logprob)
        return True

    row.on_token = keep
    return row, (row.tokens, scores)


def generated(case: Subject, inputs: Any) -> Answer:
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    model = case.loaded.model
    given = {  # the processor of Llama 4 gives bfloat16
        name: each.to(model.dtype) if each.is_floating_point() else each
        for name, each in inputs.items()
    }
    with torch.no_grad():
        found = model.generate(**given, generation_config=config)
    tokens = found.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    each = zip(found.logits, tokens, strict=True)
    return tokens, [float(logits[0].log_softmax(-1)[token]) for logits, token in each]


def assert_equal(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=2e-5)


def run(model: Any, rows: Sequence[Row], steps: int = 0, **how: Any) -> Scheduler:
    """Answer rows; all but the first join after so many steps."""
    scheduler = Scheduler(model, slots=8, prefill_tokens=64, **how)
    with torch.no_grad():
        scheduler.add(rows[:1] if steps else rows)
        for _ in range(steps):
            scheduler.step()
        scheduler.add(rows[1:] if steps else [])
        scheduler.run()
    return scheduler


@cache
def prepared(family: str, twin: str) -> Subject:
    """A twin that attends and sees more than with its first weights, which are near zero."""
    case = subject(family, twin)
    model = copy.deepcopy(case.loaded.model).eval()
    model.generation_config = GenerationConfig()
    with torch.no_grad():
        for name, each in model.named_parameters():
            if not each.any() or "gate" in name:
                each.normal_(0, 0.5)
            elif each.dim() > 1:
                each.mul_(6)
    return replace(case, loaded=replace(case.loaded, model=model))


def test_an_answer_after_a_video_of_many_frames() -> None:
    """Whose last frames have higher positions than the text after them."""
    case = prepared("qwen", "qwen2_vl")
    talk = [user(video("slow"), text("What changes?"))]
    row, found = asked(case, talk)
    assert row.media is not None and row.media.positions is not None
    assert row.media.positions[1:].max() > row.media.positions[1:, 0, -1].max()
    run(case.loaded.model, [row])
    assert_equal([found], [generated(case, case.whole(talk, prompt=True))])


@pytest.mark.parametrize(("family", "twin"), every_twin())
def test_answers_equal_generate(family: str, twin: str) -> None:
    case = prepared(family, twin)
    model = case.loaded.model
    talks = questions(case)
    expected = [generated(case, case.whole(talk, prompt=True)) for talk in talks]
    plain = torch.tensor([case.prompt(PLAIN)])
    given = {"input_ids": plain, "attention_mask": torch.ones_like(plain)}
    if case.loaded.media_inputs:
        labels = torch.full_like(plain, -100)
        given |= case.loaded.media_inputs(given, labels, case.loaded.processor)
    without = generated(case, given)
    for steps in (0, 2):
        rows, found = zip(*(asked(case, talk) for talk in (PLAIN, *talks, PLAIN)), strict=True)
        run(model, rows, steps)
        assert_equal(found, [without, *expected, without])
    if twin not in ("qwen2_audio",):
        row, unlike = asked(case, talks[0], other(case, "wide"))
        run(model, [row])
        assert unlike[1] != pytest.approx(expected[0][1], abs=2e-4)
    for talk, wanted in zip(talks, expected, strict=True):
        row, alone = asked(case, talk)
        run(model, [row])
        assert_equal([alone], [wanted])


def other(case: Subject, name: str) -> Medium:
    """Another image of the same size, and so with the same ids."""
    first = case.medium(name)
    return Medium(first.shape, ImageOps.invert(first.content))


@pytest.mark.parametrize(
    ("family", "twin"), [("qwen", "qwen2_vl"), ("mistral", "pixtral"), ("gemma", "gemma3_media")]
)
def test_prompts_that_begin_alike(family: str, twin: str) -> None:
    """Keys and values are kept for the same picture, not for another one with the same ids."""
    case = prepared(family, twin)
    model, first = case.loaded.model, TALKS["question"][:-1]
    answered = [*TALKS["question"], user(text("And how tall?"))]
    expected = generated(case, case.whole(first, prompt=True))
    again = generated(case, case.whole(answered, prompt=True))
    scheduler = Scheduler(model, reuse_tokens=4096, prefill_tokens=32)

    def run(*rows: Row) -> None:
        with torch.no_grad():
            scheduler.add(rows)
            scheduler.run()

    one, found = asked(case, first)
    run(one)
    assert_equal([found], [expected])
    two, unlike = asked(case, first, other(case, "wide"))
    run(two)
    assert scheduler.reused_tokens == 0 and one.prompt == two.prompt
    assert unlike[1] != pytest.approx(expected[1], abs=2e-4)
    three, found = asked(case, answered)
    run(three)
    assert_equal([found], [again])
    assert scheduler.reused_tokens >= len(one.prompt)
    # at once, where equal prompts are computed once
    four, five = asked(case, first), asked(case, first, other(case, "wide"))
    six = asked(case, first)
    run(four[0], six[0], five[0])
    assert_equal([four[1], five[1], six[1]], [expected, unlike, expected])


def test_scores_of_a_prompt_with_a_picture() -> None:
    case = prepared("qwen", "qwen2_vl")
    talk = TALKS["question"][:-1]
    row, _ = asked(case, talk)
    row.prompt_logprobs = 0
    run(case.loaded.model, [row])
    with torch.no_grad():
        logits = case.loaded.model(**case.whole(talk, prompt=True)).logits[0].log_softmax(-1)
    wanted = [float(logits[at][token]) for at, token in enumerate(row.prompt[1:])]
    assert [each.logprob for each in row.prompt_scores[1:]] == pytest.approx(wanted, abs=1e-4)
