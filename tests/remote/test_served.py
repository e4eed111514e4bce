"""Recipes that the servers cannot serve, and models that are merged for them."""

from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright.context import Run
from tunewright.run import train
from tunewright_conformance.trial import recipe
from tunewright_engine_remote import Vllm
from tunewright_engine_remote.served import find_served

LORA = {"name": "lora", "rank": 4}


def of(tmp_path: Path, **sections: Any) -> dict[str, Any]:
    asked = recipe({"name": "sft"}, "messages", tmp_path, 4, max_steps=1)
    return asked | {"engine": "vllm", "adapter": LORA} | sections


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"adapter": {**LORA, "modules_to_save": ["lm_head"]}}, "adapter with modules_to_save"),
        ({"adapter": {**LORA, "dora": True}}, "no adapter with dora"),
        ({"adapter": "ia3"}, "no adapter of type IA3"),
        ({"quantizer": "bitsandbytes"}, "vLLM does not quantize as bitsandbytes does"),
    ],
)
def test_merging_is_the_remedy(sections: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        resolve(of(tmp_path, **sections))
    assert "set engine.merge: true" in str(caught.value)
    for engine in ({"merge": True}, {"address": "http://gpu:8000"}):
        resolve(of(tmp_path, **sections, engine={"name": "vllm", **engine}))


def test_stages_that_do_not_go_with_it(tmp_path: Path) -> None:
    rollouts = {"stage": {"name": "grpo", "rewards": [{"name": "length", "target": 5}]}}
    for stage, says in (
        (rollouts, "grpo generates with the model that it trains"),
        ({"stage": "reward"}, "reward trains a reward model"),
    ):
        with pytest.raises(RecipeError, match=says):
            resolve(of(tmp_path, **stage))
    resolve(of(tmp_path))
    resolve(of(tmp_path, adapter="full"))


def test_a_merged_model_is_the_run_s(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    asked = of(tmp_path, engine={"name": "vllm", "merge": True})
    train(asked)
    run = Run(resolve(asked))
    engine = Vllm(Vllm.Options(merge=True), "vllm")
    served = find_served(run, engine, {}, tmp_path / "merged")
    assert (served.model, served.names, served.adapters) == (str(tmp_path / "merged"), [None], {})
    ids = torch.tensor([served.loaded.tokenizer("Line 3?").input_ids])
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(served.model)(ids).logits
        expected = run.load_policy().model.eval()(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(RunError, match="into which nothing is merged"):
        find_served(run, engine, {"x": tmp_path}, tmp_path / "again")
