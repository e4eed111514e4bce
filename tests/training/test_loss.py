"""The loss is plain cross entropy over trained positions: same value, same gradients, less
memory."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from training_setup import SIZE, lora, model, qwen
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaForCausalLM, Qwen3MoeConfig

import tunewright_hf.losses.chunked_cross_entropy
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.losses.chunked_cross_entropy import weighted_sum

CONFIGS = {
    "llama": lambda: None,
    "qwen3, tied": qwen,
    "gemma2, soft cap": lambda: Gemma2Config(**SIZE, final_logit_softcapping=0.2),
    "granite, divided": lambda: GraniteConfig(**SIZE, logits_scaling=0.1),
    "cohere, scaled": lambda: CohereConfig(**SIZE, logit_scale=7.0),
}


@pytest.fixture
def batch():
    torch.manual_seed(3)
    ids = torch.randint(3, 128, (3, 9))
    labels = ids.clone()
    labels[0, :4] = labels[1, 5:] = labels[2, ::2] = -100
    return ids, labels


def plain(model, ids, labels, weights=None):
    logits = model(input_ids=ids).logits[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    return (losses * (weights[:, 1:].flatten() if weights is not None else 1)).sum()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None
    }


def assert_same(model, ids, labels, weights=None):
    loss, total = CausalLoss(model)(model, {"input_ids": ids}, labels, weights)
    expected = plain(model, ids, labels, weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equals_plain_cross_entropy(config, weighted, batch):
    weights = torch.rand(3, 9) if weighted else None
    made = model(config())
    assert_same(made, *batch, weights)
    assert CausalLoss(made).after_head is not None  # measured, not the model's own logits


def test_equals_plain_cross_entropy_under_peft(batch):
    made = lora(model(), dropout=0.0).model
    for name, each in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each)
    assert_same(made, *batch)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_chunks_add_up(config, batch, monkeypatch):
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "CPU_CHUNK", 4 * 128)
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "LEAST", 1)
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "TILE", 48)
    assert_same(model(config()), *batch)


class RowsOfLogits(TorchDispatchMode):
    """Number of positions of each tensor with the vocabulary's width."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[int] = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        made = function(*arguments, **(named or {}))
        tensors = [each for each in pytree.tree_leaves(made) if isinstance(each, torch.Tensor)]
        self.found |= {
            each.numel() // SIZE["vocab_size"]
            for each in tensors
            if each.shape[-1:] == (SIZE["vocab_size"],)
        }
        return made


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_of_all_positions_never_exist(config, batch):
    made = model(config())
    loss = CausalLoss(made)
    assert loss.after_head is not None
    ids, labels = batch
    with RowsOfLogits() as rows:
        loss(made, {"input_ids": ids}, labels, None)[0].backward()
    assert int((labels[:, 1:] != -100).sum()) in rows.found
    assert rows.found.isdisjoint({ids.numel(), labels[:, 1:].numel()})
    with RowsOfLogits() as rows:
        made(input_ids=ids)
    assert ids.numel() in rows.found


def test_what_a_library_does_to_the_head_counts(batch):
    made = model()
    own = made.lm_head.forward
    made.lm_head.forward = lambda states: own(states) * 2
    assert_same(made, *batch)


def test_a_family_of_its_own_falls_back_to_its_logits(batch):
    class Odd(LlamaForCausalLM):
        def forward(self, **inputs):
            inputs.pop("labels", None)
            outputs = super().forward(**inputs)
            outputs.logits = outputs.logits * 3
            return outputs

    torch.manual_seed(0)
    odd = Odd(model().config)
    assert CausalLoss(odd).after_head is None
    assert_same(odd, *batch)


def test_auxiliary_loss_of_experts_is_kept(batch):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    made = model(
        Qwen3MoeConfig(**SIZE, **experts, output_router_logits=True, router_aux_loss_coef=0.5)
    )
    ids, labels = batch
    loss, total = CausalLoss(made)(made, {"input_ids": ids}, labels, None, 0.25)
    own = made(input_ids=ids, labels=labels)
    torch.testing.assert_close(loss, 0.25 * total + 0.5 * own.aux_loss)


def test_nothing_trained_gives_zero_and_a_gradient_for_every_parameter(batch):
    made = model()
    ids, _ = batch
    loss, _ = CausalLoss(made)(made, {"input_ids": ids}, torch.full_like(ids, -100), None)
    assert loss == 0
    assert set(gradients(made, loss)) == {name for name, _ in made.named_parameters()}


def test_the_model_is_left_as_it_was(batch):
    made = model()
    ids, labels = batch
    before = made(input_ids=ids, labels=labels).loss
    CausalLoss(made)(made, {"input_ids": ids}, labels, None)
    assert "forward" not in made.lm_head.__dict__
    assert made(input_ids=ids, labels=labels).loss == before


@pytest.mark.parametrize("number_format", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_full(number_format, monkeypatch):
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "LEAST", 4)
    monkeypatch.setattr(tunewright_hf.losses.chunked_cross_entropy, "CPU_CHUNK", 1)
    torch.manual_seed(3)
    states, head = torch.randn(2, 9, 16), torch.randn(64, 16)
    targets, weights = torch.randint(0, 64, (2, 9)), torch.rand(2, 9)
    found = []
    for each in (torch.float32, number_format):
        own, scored_by = (one.detach().to(each).requires_grad_() for one in (states, head))
        total = weighted_sum(
            own,
            lambda part, head=scored_by: F.linear(part, head),
            targets,
            weights,
            64,
            None,
            [scored_by],
        )
        (total * 8).backward()
        found.append([total.detach(), own.grad.float(), scored_by.grad.float()])
    for full, half in zip(*found, strict=True):
        torch.testing.assert_close(half, full, rtol=0.05, atol=0.3)
        assert not torch.equal(half, full)


def test_an_answer_that_the_model_thinks_impossible_has_a_loss():
    """Its probability is 0 in fp32, whose logarithm is no number."""
    states = torch.tensor([[[1000.0, 0.0]]], requires_grad=True)
    total = weighted_sum(states, lambda each: each, torch.tensor([[1]]), torch.ones(1, 1), 2)
    total.backward()
    assert total == 1000 and states.grad.tolist() == [[[1.0, -1.0]]]
