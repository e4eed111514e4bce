"""Optimizers and adapters that cannot work together, as the check says it."""

import pytest
from accelerators_setup import asked

from tunewright import check
from tunewright.source import RecipeProblems

GALORE = {"name": "galore", "layerwise": True}


@pytest.mark.parametrize(
    ("optimizer", "adapter", "message"),
    [
        ("lomo", "adalora", "adalora ranks layers by the gradients of all of them"),
        ("badam", "adalora", "adalora ranks layers by the gradients of all of them"),
        (GALORE, "adalora", "adalora ranks layers by the gradients of all of them"),
        ("lorafa", "vera", "lorafa trains LoRA's matrices, and adapter vera has none"),
        ("lorafa", "prompt_tuning", "and adapter prompt_tuning has none"),
        ("badam", "prompt_tuning", "badam trains one layer at a time, and adapter prompt_tuning"),
    ],
)
def test_they_are_refused(tmp_path, optimizer, adapter, message):
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(asked(tmp_path, adapter=adapter, optimizer=optimizer))


@pytest.mark.parametrize(
    "more",
    [
        {"accelerators": ["activation_checkpointing"]},
        {"training": {"activation_checkpointing": True}},
    ],
)
def test_a_prefix_cannot_be_recomputed(tmp_path, more):
    with pytest.raises(RecipeProblems, match="prefix_tuning gives them keys and values only once"):
        check.resolve(asked(tmp_path, adapter="prefix_tuning", **more))
