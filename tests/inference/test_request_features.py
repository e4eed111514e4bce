"""Vectors, scores, adapters and guides of requests."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from engine_setup import (  # noqa: E402
    INFO,
    byte_tokenizer,
    opened,
    real,
    request,
    run_of,
    text_of,
    tiny,
)
from inference.test_requests import LOUD, said  # noqa: E402
from tunewright import RowError, RunError  # noqa: E402
from tunewright.inference import Grammar, JsonSchema, Regex, answers  # noqa: E402
from tunewright.types import Conversation, Message  # noqa: E402


def test_vectors_of_texts() -> None:
    with opened(real(**LOUD)) as engine:
        asked = ["a b", "c", Conversation([Message("user", "a b")])]
        found = engine.embed(asked)
        assert [sum(x * x for x in each) for each in found.values] == pytest.approx([1.0] * 3)
        assert found.prompt_tokens[:2] == [3, 1]
        assert engine.embed(asked[1:2]).values[0] == pytest.approx(found.values[1], abs=1e-5)
        with pytest.raises(RowError):
            engine.embed(["a" * 600])


def test_scores_of_a_reward_model() -> None:
    from transformers import LlamaForSequenceClassification

    tokenizer = byte_tokenizer()
    model = tiny(LlamaForSequenceClassification, tokenizer, num_labels=1, **LOUD).eval()
    run = run_of(model, tokenizer, INFO)
    with opened(run, head="score") as engine:
        assert engine.features == {"embeddings", "scores"}
        found = engine.score(["a b", "Größe"])
        for text, value in zip(("a b", "Größe"), found.values, strict=True):
            ids = torch.tensor([tokenizer(text).input_ids])
            states = model.model(ids).last_hidden_state[0, -1]
            assert value == pytest.approx(float(model.score(states).detach()), abs=1e-4)
        with pytest.raises(RowError):
            engine.submit(request(), lambda piece: None)
    with opened(real()) as engine, pytest.raises(RunError, match="no reward model"):
        engine.score(["a"])


def adapter(folder: Path, seed: int, **more: Any) -> Path:
    """A LoRA with large weights."""
    from peft import LoraConfig, get_peft_model

    base = real(**LOUD).loads().model
    torch.manual_seed(seed)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, r=4, **more)
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def test_several_adapters_in_one_batch(tmp_path: Path) -> None:
    folders = {name: adapter(tmp_path / name, n) for n, name in enumerate(("one", "two"), 1)}
    alone = {}
    for name, folder in folders.items():
        with opened(real(**LOUD), adapters={name: folder}) as engine:
            alone[name] = said(engine, model=name)
            assert engine.models[1:] == (name,)
    with opened(real(**LOUD)) as engine:
        alone[None] = said(engine)
    assert len(set(alone.values())) == 3
    with opened(real(**LOUD), adapters=folders, slots=6) as engine:
        names = [None, "one", "two", "two", None, "one"]
        streams = [answers(engine, request(max_new_tokens=12, model=name)) for name in names]
        firsts = [next(stream) for stream in streams]
        texts = [text_of([first, *stream]) for first, stream in zip(firsts, streams, strict=True)]
        assert texts == [alone[name] for name in names]


def test_adapters_that_cannot_share_a_batch_are_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "whole", 1, modules_to_save=["lm_head"])
    with pytest.raises(RunError, match="modules_to_save"):
        opened(real(**LOUD), adapters={"whole": folder})
    with pytest.raises(RunError, match=r"adapter_config\.json"):
        opened(real(**LOUD), adapters={"none": tmp_path})


def test_guides_hold_for_every_row(tmp_path: Path) -> None:
    pytest.importorskip("xgrammar")
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
    with opened(real(**LOUD)) as engine:
        assert "guides" in engine.features
        hot = {"temperature": 1.0, "max_new_tokens": 60}
        streams = [
            answers(engine, request(guide=JsonSchema(schema), seed=seed, **hot))
            for seed in range(4)
        ]
        streams.append(answers(engine, request(guide=Regex("[ab]{3}c"), **hot)))
        streams.append(answers(engine, request(guide=Grammar('root ::= "x" | "yy"'), **hot)))
        firsts = [next(stream) for stream in streams]
        *objects, regex, grammar = (
            text_of([first, *stream]) for first, stream in zip(firsts, streams, strict=True)
        )
        for text in objects:
            found = json.loads(text)
            assert set(found) == {"name", "old"} and isinstance(found["old"], bool)
        assert re.fullmatch("[ab]{3}c", regex)
        assert grammar in ("x", "yy")


def test_a_guide_that_takes_too_long_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and holds up neither other guides nor answers without."""
    monkeypatch.setattr("tunewright_engine_hf.guides._SECONDS", 0.5)
    slow = JsonSchema({"enum": [f"x{number}" * 20 for number in range(700)]})
    with opened(real()) as engine:
        began = time.monotonic()
        with pytest.raises(RowError, match=r"guide: took over 0.5 s to compile"):
            engine.submit(request(guide=slow), lambda piece: None)
        assert time.monotonic() - began < 10
        assert text_of(list(answers(engine, request(guide=Regex("ab"))))) == "ab"
