"""Next tokens of many rows at once."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from transformers import (  # noqa: E402
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunewright_hf.inference.rows import Row, RowSampling  # noqa: E402
from tunewright_hf.inference.sampling import next_tokens  # noqa: E402

WARPERS = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}


def row(seed: int, sampling: RowSampling) -> Row:
    return Row([1, 2], 20, sampling, random=np.random.default_rng(seed))


@pytest.mark.parametrize(
    "how", [{"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 9, "top_p": 0.6, "min_p": 0.1}]
)
def test_what_is_sampled_is_what_transformers_leaves(how: dict[str, Any]) -> None:
    scores = torch.randn(1, 30, generator=torch.Generator().manual_seed(0)) * 2
    left = TemperatureLogitsWarper(0.8)(None, scores)
    for name, warper in WARPERS.items():
        left = warper(how[name])(None, left) if name in how else left
    many = 4000
    rows = [row(seed, sampling=RowSampling(temperature=0.8, **how)) for seed in range(many)]
    tokens, _ = next_tokens(scores.expand(many, -1), rows)
    found = np.bincount(tokens, minlength=30) / many
    assert ((found > 0) <= (left[0] > -torch.inf).numpy()).all()
    assert np.abs(found - left[0].softmax(-1).numpy()).max() < 0.03


def test_numbers_at_the_borders_choose_tokens_that_can_be() -> None:
    scores = torch.tensor([[-torch.inf, 1.0, 1.0, -torch.inf]])
    for number, token in ((0.0, 1), (0.4999, 1), (0.5, 2), (float(np.nextafter(1, 0)), 2)):
        asked = row(0, sampling=RowSampling(temperature=1.0))
        asked.random = SimpleNamespace(random=lambda number=number: number)
        assert next_tokens(scores, [asked])[0] == [token]


def test_penalties_count_the_tokens_of_the_answer() -> None:
    scores = torch.zeros(1, 50)
    scores[0, 5], scores[0, 6] = 3.0, 2.5
    presence = Row([5, 5, 6], 9, RowSampling(presence_penalty=0.4, frequency_penalty=0.3))
    chosen = []
    for _ in range(4):
        tokens, _ = next_tokens(scores, [presence])
        presence.tokens += tokens
        chosen += tokens
    # 5: 3 - 0.4 - 0.3 = 2.3 after once, 6: 2.5 - 0.7 = 1.8; the prompt does not count
    assert chosen == [5, 6, 5, 5]
