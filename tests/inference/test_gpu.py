"""The slot scheduler on a GPU says what it says on a CPU, whoever joins when."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inference.test_scheduler import llama, row  # noqa: E402
from tunewright_hf.inference.rows import Row, RowSampling  # noqa: E402
from tunewright_hf.inference.scheduler import Scheduler  # noqa: E402


def rows() -> list[Row]:
    drawn = RowSampling(temperature=0.8, top_p=0.9, repetition_penalty=1.2)
    return [
        row(1, length=3, count=30),
        row(2, length=40, count=8, sampling=drawn),
        row(3, length=300, count=12),
        row(4, length=9, count=20, sampling=drawn, logprobs=3),
    ]


def said(device: str, **how: Any) -> list[list[int]]:
    """Tokens of the rows, of which two join after five steps."""
    scheduler, asked = Scheduler(llama().to(device), slots=3, prefill_tokens=64, **how), rows()
    with torch.no_grad():
        scheduler.add(asked[:2])
        for _ in range(5):
            scheduler.step()
        scheduler.add(asked[2:])
        scheduler.run()
    return [each.tokens for each in asked]


@pytest.mark.gpu
@pytest.mark.parametrize("how", [{}, {"reuse_tokens": 1000}, {"cache_tokens": 700}], ids=str)
def test_as_on_a_cpu(how: dict[str, Any]) -> None:
    assert said("cuda", **how) == said("cpu", **how)
