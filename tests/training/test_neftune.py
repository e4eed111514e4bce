"""Noise on embeddings: as the paper has it, in training only, the same after resuming."""

import pytest
import torch
from accelerators_setup import asked, assert_same_weights, go
from training_setup import loaded, model

from tunewright import check
from tunewright.source import RecipeProblems
from tunewright_neftune.noise import Noise, lengths

NEFTUNE = {"name": "neftune", "alpha": 10}


class Loop:
    """What a callback reads of the training loop."""

    def __init__(self, step):
        self.step = step
        self.trainer = type("Trainer", (), {"device": torch.device("cpu")})


def embedded(llama, noise, step=0, **inputs):
    """The embeddings that the layers get, and those without noise."""
    found = []
    embeddings = llama.get_input_embeddings()
    with noise.added(llama):
        hook = llama.model.layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: found.append(args[0]), with_kwargs=True
        )
        noise.on_step_begin(Loop(step))
        llama(**inputs, use_cache=False)
        hook.remove()
    return found[0].detach(), embeddings(inputs["input_ids"]).detach()


def noise_in(llama, noise, **how):
    noisy, plain = embedded(llama, noise, **how)
    return noisy - plain


def test_noise_has_the_size_of_the_paper():
    llama, size = model().train(), 32
    ids = torch.arange(3, 63).reshape(2, 30)
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 12:] = 0
    found = noise_in(llama, Noise(10.0, 42, 0), input_ids=ids, attention_mask=mask)
    for row, length in ((0, 30), (1, 12)):
        bound = 10 / (length * size) ** 0.5
        own = found[row, :length].abs()
        assert own.max() <= bound + 1e-6
        assert own.max() > 0.98 * bound  # uniform up to the bound
        assert own.mean() == pytest.approx(bound / 2, rel=0.1)


def test_packed_examples_have_their_own_lengths():
    places = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 0, 1, 2]])
    assert lengths({"position_ids": places}).tolist() == [[5, 5, 5, 5, 5, 2, 2, 3, 3, 3]]
    llama = model().train()
    ids = torch.arange(3, 13)[None]
    found = noise_in(llama, Noise(10.0, 42, 0), input_ids=ids, position_ids=places)
    assert found[0, 5:7].abs().max() > 10 / (5 * 32) ** 0.5


def test_evaluation_sampling_and_references_have_no_noise():
    llama, noise = model(), Noise(10.0, 42, 0)
    ids = torch.arange(3, 13)[None]
    assert not noise_in(llama.eval(), noise, input_ids=ids).any()
    llama.train()
    with torch.no_grad():
        assert not noise_in(llama, noise, input_ids=ids).any()
    assert noise_in(llama, noise, input_ids=ids).any()


def test_noise_differs_by_step_and_rank():
    llama, ids = model().train(), torch.arange(3, 13)[None]
    one = noise_in(llama, Noise(10.0, 42, 0), input_ids=ids)
    assert one.equal(noise_in(llama, Noise(10.0, 42, 0), input_ids=ids))
    for noise, step in ((Noise(10.0, 42, 0), 1), (Noise(10.0, 42, 1), 0), (Noise(10.0, 7, 0), 0)):
        assert not one.equal(noise_in(llama, noise, step=step, input_ids=ids))


def test_nothing_is_left_on_the_model():
    llama = loaded(model()).model
    with Noise(10.0, 42, 0).added(llama):
        assert llama.training_callbacks and llama._forward_pre_hooks
    with pytest.raises(KeyError), Noise(10.0, 42, 0).added(llama):
        raise KeyError
    assert "training_callbacks" not in vars(llama)
    assert not llama._forward_pre_hooks
    assert not llama.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("adapter", ["full", {"name": "lora", "rank": 4}], ids=["full", "lora"])
def test_it_changes_a_training_and_resumes_bit_for_bit(tmp_path, adapter):
    settings = {"adapter": adapter, "training": {"max_steps": 4, "save_steps": 4}}
    plain = go(tmp_path / "plain", **settings)
    whole = go(tmp_path / "whole", NEFTUNE, **settings)
    assert plain.losses != whole.losses
    stopped = go(tmp_path / "parts", NEFTUNE, stop_at=2, **settings)
    resumed = go(tmp_path / "parts", NEFTUNE, resume=True, **settings)
    assert stopped.losses + resumed.losses == whole.losses
    assert_same_weights(resumed, whole)
    assert resumed.checkpoint(4) == whole.checkpoint(4)


def test_online_rl_is_refused(tmp_path):
    recipe = asked(tmp_path, NEFTUNE, stage={"name": "grpo", "rewards": ["length"]})
    with pytest.raises(RecipeProblems, match=r"grpo compares log-probabilities.*no noise"):
        check.resolve(recipe)
