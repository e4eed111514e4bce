"""A checkpoint in the layout of its publisher, loaded as a native class, gives the logits and
gradients of its own architecture."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from native_originals import Tensors
from native_setup import TWINS, Checkpoint, batch, checkpoint, load, native_config
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.native import fill, lookup

LENGTHS = (1, 7, 40, 200)
#: of the largest number; transformers keeps norms in float32 whatever the weights are
TOLERANCE = {torch.float32: 2e-5, torch.float64: 3e-6}

every_twin = pytest.mark.parametrize("twin", TWINS)


@every_twin
def test_logits_of_a_loaded_checkpoint(run: FakeRun, tmp_path: Path, twin: str) -> None:
    made = checkpoint(twin, tmp_path)
    model = load(run, twin, tmp_path).model
    assert "beside its weights is not run" in "\n".join(run.notices)
    for length in LENGTHS:
        for left in (False, True):
            ids, mask = batch(length, left)
            with torch.no_grad():
                found = model(input_ids=ids, attention_mask=mask).logits
                expected = made.reference(made.tensors, ids, mask)
            assert close(found[mask == 1], expected[mask == 1], TOLERANCE[torch.float32])


@every_twin
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
def test_logits_and_gradients(tmp_path: Path, twin: str, dtype: torch.dtype) -> None:
    """Gradients reach the stored tensors through the mapping, as through the architecture."""
    made = checkpoint(twin, tmp_path)
    config = native_config(made.native)  # grouped experts have no float64
    model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
    model = model.to(dtype).eval()
    for length in LENGTHS:
        ids, mask = batch(length)
        stored = {name: each.to(dtype).requires_grad_() for name, each in made.tensors.items()}
        expected = made.reference(stored, ids, mask)
        gradients = torch.autograd.grad(loss(expected, ids, mask), stored.values())
        tensors = converted(made, stored, set(model.state_dict()))
        inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        found = functional_call(model, tensors, kwargs=inputs, tie_weights=False).logits
        through = torch.autograd.grad(loss(found, ids, mask), stored.values(), allow_unused=True)
        assert close(found[mask == 1], expected[mask == 1], TOLERANCE[dtype])
        largest = max(float(each.abs().max()) for each in gradients)
        for name, one, other in zip(stored, gradients, through, strict=True):
            other = torch.zeros_like(one) if other is None else other  # an expert that saw nothing
            assert float((one - other).abs().max()) <= 3 * TOLERANCE[dtype] * largest, name


@every_twin
def test_a_wrong_mapping_is_seen(tmp_path: Path, twin: str) -> None:
    made = checkpoint(twin, tmp_path)
    model = AutoModelForCausalLM.from_config(native_config(made.native)).eval()
    ids, mask = batch(7)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    swapped = {"input_layernorm": "post_attention_layernorm"}
    swapped |= {other: one for one, other in swapped.items()}
    rules = [
        replace(
            rule,
            native=tuple(
                re.sub(r"\w+_layernorm", lambda m: swapped[m[0]], name) for name in rule.native
            ),
        )
        for rule in made.native.rules
    ]
    expected = made.reference(made.tensors, ids, mask)
    for native, equal in ((made.native, True), (replace(made.native, rules=tuple(rules)), False)):
        tensors = converted(made._replace(native=native), made.tensors, set(model.state_dict()))
        found = functional_call(model, tensors, kwargs=inputs, tie_weights=False).logits
        assert close(found[mask == 1], expected[mask == 1], TOLERANCE[torch.float32]) == equal


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    found, expected = found.detach(), expected.detach()
    bound = tolerance * float(expected.abs().max())
    return float((found - expected).abs().max()) <= bound


def loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Of each id at its own position, so that rows of one token have one too."""
    return torch.nn.functional.cross_entropy(logits[mask == 1], ids[mask == 1])


def converted(made: Checkpoint, stored: Tensors, names: set[str]) -> Tensors:
    """The native tensors as functions of the stored ones, experts stacked as the class has them."""
    found = {}
    for name, tensor in stored.items():
        rule, numbers = lookup(made.native.rules, name) or pytest.fail(name)
        for native, part in zip(rule.native, rule.split(tensor), strict=True):
            found[fill(native, numbers)] = part
    if made.native.config.get("tie_word_embeddings"):
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    for stack in names - found.keys():
        at, _, kind = stack.rpartition(".")  # model.layers.1.mlp.experts, gate_up_proj
        count = made.native.config["num_experts"]
        parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
        found[stack] = torch.stack(
            [torch.cat([found.pop(f"{at}.{e}.{p}.weight") for p in parts]) for e in range(count)]
        )
    return found
