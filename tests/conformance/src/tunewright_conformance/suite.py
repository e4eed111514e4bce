"""What the test classes of all kinds share."""

import re
from typing import ClassVar

import pytest

from tunewright.registry import Entry, load
from tunewright_conformance.imports import Imports


class Suite:
    """The tests of one kind. Every test takes `entry`, the plugin under test, as its metadata names
    it.

    A plugin cannot override or drop a test. What it does not pass it declares, with the reason:
    `deviations = {"test_name": "A full sentence."}`. The test must then fail, or the declaration is
    outdated.
    """

    kinds: ClassVar[tuple[str, ...]]

    @pytest.fixture(autouse=True)
    def _expect_deviation(
        self, entry: Entry, imports: Imports, request: pytest.FixtureRequest
    ) -> None:
        if error := imports[entry.kind, entry.qualified].error:
            pytest.fail(error, pytrace=False)
        if reason := deviations(entry).get(request.node.originalname):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def deviations(entry: Entry) -> dict[str, str]:
    """What a plugin declares. A command is a function, which has nowhere to declare any."""
    declared: dict[str, str] = {} if entry.kind == "command" else load(entry).deviations
    return declared


def is_sentence(text: str) -> bool:
    """Whether a reason is long enough to be one: four words, a capital first, a full stop last."""
    return bool(re.fullmatch(r"[A-Z`'\"].*[.!]", text, re.DOTALL)) and len(text.split()) >= 4
