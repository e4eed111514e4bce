"""Greedy answers of the slot scheduler equal transformers' generate, for the tiny twins of all
families: rows that join late, alone and in a crowd."""

import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from transformers import GenerationConfig  # noqa: E402

from tunewright import registry  # noqa: E402
from tunewright.types import LoadRequest  # noqa: E402
from tunewright_conformance.doubles import FakeRun  # noqa: E402
from tunewright_hf.inference.rows import Row  # noqa: E402
from tunewright_hf.inference.scheduler import Scheduler  # noqa: E402
from tunewright_hf.models import twins  # noqa: E402


def every_twin() -> list[Any]:
    """(family, twin), one of each architecture now, the others `long`."""
    found, seen = [], set()
    for entry in sorted(registry.entries("family"), key=lambda entry: entry.name):
        plugin: Any = registry.load(entry)
        for name, spec in twins.specs(plugin(plugin.Options()).package).items():
            marks = [pytest.mark.long] if spec.model_type in seen else []
            seen.add(spec.model_type)
            found.append(pytest.param(entry, name, id=f"{entry.name}-{name}", marks=marks))
    return found


def generated(model: Any, row: Row) -> list[int]:
    ids = torch.tensor([row.prompt])
    config = GenerationConfig(
        max_new_tokens=row.max_new_tokens, do_sample=False, pad_token_id=0, use_cache=True
    )
    with torch.no_grad():
        found = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    return list(found[0, len(row.prompt) :].tolist())


@pytest.mark.parametrize(("entry", "twin"), every_twin())
def test_greedy_answers_equal_generate(entry: Any, twin: str) -> None:
    plugin: Any = registry.load(entry)
    family = plugin(plugin.Options(device="cpu", tiny_variant=twin))
    loaded = family.load_model(run=FakeRun(), request=LoadRequest("tiny", dtype="float32"))
    model, size = loaded.model.eval(), len(loaded.tokenizer)
    model.generation_config = GenerationConfig()
    numbers = random.Random(0)
    lengths = [(3, 12), (70, 25), (20, 4), (9, 25), (45, 12), (3, 4), (20, 25)]
    rows = [
        Row([numbers.randrange(5, size) for _ in range(length)], count) for length, count in lengths
    ]
    expected = [generated(model, row) for row in rows]
    scheduler = Scheduler(model, slots=4, prefill_tokens=96)
    with torch.no_grad():
        scheduler.add(rows[:3])
        for _ in range(5):
            assert scheduler.step()
        scheduler.add(rows[3:5])
        for _ in range(2):
            assert scheduler.step()
        scheduler.add(rows[5:])
        scheduler.run()
        alone = Row(rows[4].prompt, rows[4].max_new_tokens)
        scheduler.add([alone])
        scheduler.run()
    assert [row.tokens for row in rows] == expected
    assert alone.tokens == expected[4]
