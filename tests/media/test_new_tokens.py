"""Tokens that a recipe adds to models that take media: their ids stand for nothing else there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from media.media_cases import every_twin
from tunewright import RecipeError, registry
from tunewright.types import LoadRequest
from tunewright_conformance.bench import FakeRun, family_options, on_bench
from tunewright_hf.batching.collators import Padded
from tunewright_hf.media.collation import media_rows


@pytest.mark.parametrize(("family", "twin"), every_twin())
def test_beside_media(family: str, twin: str, tmp_path: Path) -> None:
    """A new token with the embedding of a known one is that to the model, beside an image or a
    sound; and it can be answered."""
    entry = registry.find("family", family)
    options = family_options(entry, twin) | {"new_tokens": ["<plan>", "<other plan>"]}
    handle = on_bench(entry, **options)
    run = FakeRun(tmp_path)
    if twin in ("gemma3n", "mllama"):
        with pytest.raises(
            RecipeError, match=r"has ids of media from .* where new tokens would be"
        ):
            handle.call("load_model", run=run, request=LoadRequest("tiny"))
        return
    loaded = handle.call("load_model", run=run, request=LoadRequest("tiny"))
    model, new = loaded.model, loaded.new_tokens[1]
    rows = media_rows(loaded)
    assert rows is not None
    known = 21  # of the probe row
    head = model.get_output_embeddings()
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, head.weight):
            table[new] = table[known]
    for row in rows.probe_rows(0):
        assert known in row["input_ids"]
        changed = row | {"input_ids": [new if i == known else i for i in row["input_ids"]]}
        found: Any = []
        for each in (row, changed):
            with torch.no_grad():
                found.append(model(**Padded(0, media=rows)([each])["inputs"]).logits[0])
        torch.testing.assert_close(found[1], found[0])
        torch.testing.assert_close(found[1][:, new], found[1][:, known])
