"""Hostile models, tokens and ids of tokenizer.json: one line, or the ids that the model was trained
with."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hostile_tokenizers_setup import Json, refused, template

from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.tokenizer_json import check_tokenizer_json


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"type": "Evil", "vocab": {}}, "model.type: is 'Evil'"),
        ({"type": "BPE"}, "model.vocab: is missing"),
        ({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}, "model.unk_token: is '?'"),
        ({"type": "WordPiece", "vocab": {"a": 0}}, "model.unk_token: is None"),
        ({"type": "Unigram", "vocab": [["a", 0.0]]}, "model.unk_id: is missing"),
        ({"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}, "several tokens: 'a', 'b'"),
        ({"type": "BPE", "vocab": {"a": -1}, "merges": []}, "model.vocab: gives 'a' the id -1"),
        ({"type": "BPE", "vocab": {"a": 2**40}, "merges": []}, "model.vocab: gives 'a' the id"),
        ({"type": "BPE", "vocab": {"a": True}, "merges": []}, "model.vocab: gives 'a' the id True"),
        (
            {
                "type": "WordPiece",
                "vocab": {"?": 0},
                "unk_token": "?",
                "max_input_chars_per_word": 10**9,
            },
            "max_input_chars_per_word: is no number",
        ),
        ({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}, "out of vocabulary"),
    ],
)
def test_strange_model_is_refused(
    run: FakeRun, checkpoint: Path, model: Json, problem: str
) -> None:
    assert problem in refused(run, checkpoint, lambda found: found.update(model=model))


def token(number: int, content: Any = "<|new|>") -> Json:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True} | flags


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        (token(1001), "ids: 1001 is the id of several tokens"),
        (token(5), "'<|new|>' is 5 there, 1026 when loaded"),
        (token(1500), "'<|new|>' is 1500 there, 1026 when loaded (ids before it are missing"),
        (
            token(1026),
            "the tokenizer has ids up to 1026 (<|new|>), the model's embeddings have 1026",
        ),
        (token(-1), "added_tokens.26.id: is -1"),
        (token(1026, 5), "added_tokens.26.content: is no text"),
        ("<|new|>", "added_tokens.26: is str"),
    ],
)
def test_strange_added_token_is_refused(
    run: FakeRun, checkpoint: Path, added: Any, problem: str
) -> None:
    assert problem in refused(run, checkpoint, lambda found: found["added_tokens"].append(added))


def test_hole_between_added_tokens(run: FakeRun, checkpoint: Path) -> None:
    """The library would give all that follow other ids than the model was trained with."""

    def remove(found: Json) -> None:
        found["added_tokens"] = [each for each in found["added_tokens"] if each["id"] != 1010]

    assert "1011 there, 1010 when loaded" in refused(run, checkpoint, remove)


def test_post_processor_that_writes_unknown_ids(run: FakeRun, checkpoint: Path) -> None:
    piece = [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {"x": {"id": "x", "ids": [99_999], "tokens": ["x"]}}
    step = template(single=piece, special_tokens=tokens)
    problem = refused(run, checkpoint, lambda found: found.update(post_processor=step))
    assert "the tokenizer has ids up to 99999" in problem


def test_a_large_file_takes_no_time(tmp_path: Path) -> None:
    """10 MB, as tokenizers of 150,000 tokens are: less than a second even on a busy machine."""
    names = [f"Ġtoken{number:08}" for number in range(150_000)]
    model = {
        "type": "BPE",
        "vocab": {name: number for number, name in enumerate(names)},
        "merges": [[names[at], names[at - 1]] for at in range(150_000)],
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": [], "model": model}))
    assert path.stat().st_size > 10_000_000
    start = time.process_time()
    check_tokenizer_json(path)
    assert time.process_time() - start < 1
