"""Policy, critic, reference and reward model on one base: it is in memory once, and nothing else is
shared."""

import json

import pytest
import torch
from test_pairs_training import CASES, adapted
from training_setup import lora, model

from tunewright.check import resolve
from tunewright.run import Run, train
from tunewright_hf.models.modules import train_only
from tunewright_hf.models.weight_sharing import share
from tunewright_hf.training.online_rl import PromptsTrainer

IDS = torch.tensor([[5, 6, 7, 8]])


def places(made) -> set[int]:
    return {each.data_ptr() for each in made.parameters() if not each.requires_grad}


def result(made) -> torch.Tensor:
    with torch.no_grad():
        return made.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("case", ["dpo", "reward"])
def test_two_adapters_share_what_is_below_them(case):
    """Of the reward model, which has a head of its own, too."""
    policy, other = lora(model()).model, adapted(CASES[case], "lora").model
    with torch.no_grad():
        for name, each in other.named_parameters():
            if "lora_" in name or "score" in name:
                each.normal_()
    other.requires_grad_(False)
    before = result(other)
    below = {name: each for name, each in policy.named_parameters() if not each.requires_grad}
    heads = {name for name in below if case == "reward" and "lm_head" in name}
    assert share(other, policy) == sum(
        each.nbytes for name, each in below.items() if name not in heads
    )
    assert torch.equal(result(other), before)
    assert {below[name].data_ptr() for name in below.keys() - heads} <= places(other)
    assert share(other, policy) == 0  # what is shared is not counted again


def test_what_is_trained_or_differs_is_not_shared():
    policy, other = model(), model().requires_grad_(False)
    assert share(other, policy) == 0  # all of it is trained
    train_only(
        policy,
        [name for name, _ in policy.named_parameters() if name.startswith("model.layers.1.")],
    )
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    saved = share(other, policy)
    same = [
        each for name, each in policy.named_parameters() if not name.startswith("model.layers.1.")
    ]
    assert (
        saved
        == sum(each.nbytes for each in same) - policy.model.layers[0].mlp.up_proj.weight.nbytes
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_are_shared_or_left_alone(bits):
    recipe = {
        "model": "tiny",
        "family": {"name": "llama", "device": "cpu", "tiny_hidden_size": 16, "tiny_layers": 1},
        "quantizer": {"name": "bitsandbytes", "bits": bits},
        "adapter": {"name": "lora", "rank": 2},
        "stage": "sft",
        "data": [{"path": "none"}],
        "output": "none",
    }
    run = Run(resolve(recipe))
    policy, other = run.load(), run.load(trainable=False)
    before, trained = result(other.model), result(policy.model)
    assert share(other.model, policy.model) > 0
    assert torch.equal(result(other.model), before)
    assert torch.equal(result(policy.model), trained)
    quantized = [each for each in policy.model.parameters() if not each.is_floating_point()]
    assert quantized
    of_both = {each.data_ptr() for each in quantized} & places(other.model)
    assert len(of_both) == (len(quantized) if bits == 4 else 0)


def test_in_a_chain(tmp_path, monkeypatch):
    """sft, reward, ppo with adapters: three models, one base."""
    (tmp_path / "pairs.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 2, "utf-8"
    )
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n' * 2, "utf-8")
    pairs, prompts = ([{"path": str(tmp_path / f"{name}.jsonl")}] for name in ("pairs", "prompts"))
    recipe = {
        "model": "tiny",
        "family": {"name": "qwen", "tiny_hidden_size": 16, "tiny_layers": 1},
        "template": "chatml",
        "adapter": "lora",
        "loggers": [],
        "output": str(tmp_path / "run"),
        "training": {"max_steps": 2},
        "stages": [
            {"name": "dpo", "data": pairs},
            {"name": "reward", "data": pairs},
            {
                "name": "ppo",
                "rewards": ["reward_model"],
                "max_new_tokens": 3,
                "ppo_epochs": 1,
                "data": prompts,
            },
        ],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    seen, asks = [], PromptsTrainer.answers

    def watched(self, *given, **how):
        found = asks(self, *given, **how)
        judge = self.rewards[0].plugin.judge.loaded.model
        seen[:] = [[places(each) for each in (self.model, self.second.model, judge)]]
        return found

    monkeypatch.setattr(PromptsTrainer, "answers", watched)
    train(resolve(tmp_path / "recipe.yaml"))
    ((policy, reference, judge),) = seen
    assert policy and policy <= reference
    # all below the adapters but the language model's head, which here is that of the embeddings
    assert policy <= judge
