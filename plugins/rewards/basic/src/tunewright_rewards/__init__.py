"""Rewards that look at an answer's text. Their form is told in tunewright_hf.training.rewards."""

import json
import re
from typing import Any

_THINKING = re.compile(r"\A.*</think>", re.DOTALL)


def exact_match(completions: list[str], *, answer: list[str], **_: Any) -> list[float]:
    """1 where the answer after the thinking is the row's column `answer`, white space at the ends
    aside; else 0."""
    given = [_THINKING.sub("", text).strip() for text in completions]
    return [float(text == str(wanted).strip()) for text, wanted in zip(given, answer, strict=True)]


def format(completions: list[str], *, pattern: str, **_: Any) -> list[float]:
    """1 where the whole answer matches a regular expression, in which `.` is any character;
    else 0."""
    form = re.compile(pattern, re.DOTALL)
    return [float(form.fullmatch(text.strip()) is not None) for text in completions]


def length(completions: list[str], *, target: int, **_: Any) -> list[float]:
    """0 for an answer of `target` characters, down to -1 for one that is twice as long, or longer,
    or empty."""
    return [-min(1.0, abs(len(text) - target) / target) for text in completions]


def valid_json(completions: list[str], **_: Any) -> list[float]:
    """1 where the answer after the thinking is JSON, alone or in a fenced block; else 0."""
    return [float(_is_json(_THINKING.sub("", text).strip())) for text in completions]


def _is_json(text: str) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\n(.*)\n```", text, re.DOTALL)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True
