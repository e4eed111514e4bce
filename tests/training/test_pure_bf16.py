"""Weights, gradients and optimizer states in bf16, and stochastic rounding."""

import json
from pathlib import Path

import pytest
import torch
from test_resume import LENGTH, assert_same_state, interrupted
from training_setup import loaded, logs_of, lora, model, rows, run_training
from transformers import AutoModelForCausalLM

import forked
from tunewright.recipe import Training
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.training.stochastic_rounding import StochasticRounding, stochastic_round

PURE = {"precision": "pure_bf16"}


@pytest.mark.parametrize("rounding", [False, True], ids=["nearest", "stochastic"])
def test_a_parameter_takes_eight_bytes(tmp_path, rounding):
    made = loaded(model())
    seen = set()
    for each in made.model.parameters():
        each.register_hook(lambda gradient: seen.add(gradient.dtype))
    run_training(tmp_path, made, **PURE, stochastic_rounding=rounding, max_steps=20, save_steps=20)
    assert seen == {torch.bfloat16}
    folder = tmp_path / "checkpoints" / "step-20"
    states = load_state(folder, "optimizer")["state"].values()
    kept = [load_state(folder, "weights").values()]
    kept += [[each[name] for each in states] for name in ("exp_avg", "exp_avg_sq")]
    parameters = sum(each.numel() for each in made.model.parameters())
    bytes_kept = sum(each.nbytes for part in kept for each in part)
    assert bytes_kept + 2 * parameters == 8 * parameters  # and the gradients
    # the result is in the dtype that the model had
    assert {each.dtype for each in made.model.parameters()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.float32


@pytest.mark.parametrize("rounding", [False, True], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_it_learns_and_resumes_bit_for_bit(tmp_path, kind, rounding):
    def made():
        return lora(model(dropout=0.2)) if kind == "lora" else loaded(model(dropout=0.2))

    settings = {"data": rows(30), **LENGTH, **PURE, "stochastic_rounding": rounding}
    whole, _ = run_training(tmp_path / "whole", made(), save_steps=6, **settings)
    assert logs_of(whole)[-1]["loss"] < logs_of(whole)[0]["loss"]
    first, checkpoint = interrupted(tmp_path / "parts", made(), at=6, **settings)
    second, _ = run_training(
        tmp_path / "parts", made(), checkpoint=checkpoint, save_steps=6, **settings
    )
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-12" for name in ("whole", "parts")))


def test_rounding_is_right_in_the_mean():
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([1.001, -3.3e-5, 0.0, 1.5, 2.0**-126])
    found = torch.stack([stochastic_round(values, generator) for _ in range(4000)]).double()
    torch.testing.assert_close(found.mean(0), values.double(), rtol=1e-3, atol=0)
    assert found[:, 3].eq(1.5).all()  # what bf16 holds stays
    assert found[:, 0].unique().numel() == 2
    odd = torch.tensor([torch.inf, -torch.inf, torch.nan])
    assert stochastic_round(odd, generator).isnan().tolist() == [False, False, True]
    assert stochastic_round(odd, generator)[:2].float().tolist() == [torch.inf, -torch.inf]


def test_small_updates_are_kept_where_the_nearest_value_loses_them():
    def stepped(rounding):
        parameter = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
        optimizer = torch.optim.SGD([parameter], lr=1e-4)  # bf16's distance at 1 is 2^-7
        for step in range(100):
            parameter.grad = torch.ones_like(parameter)
            if rounding:
                rounding.step_number = step
                rounding.step(optimizer)
            else:
                optimizer.step()
        return parameter.detach().float().mean().item()

    assert stepped(None) == 1.0
    assert stepped(StochasticRounding(0)) == pytest.approx(0.99, abs=1e-3)


def test_each_step_and_seed_rounds_by_numbers_of_its_own():
    def rounded(seed, step):
        parameter = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
        parameter.grad = torch.ones_like(parameter)
        rounding = StochasticRounding(seed)
        rounding.step_number = step
        rounding.step(torch.optim.SGD([parameter], lr=2e-3))
        return parameter.detach()

    assert torch.equal(rounded(0, 1), rounded(0, 1))
    assert not torch.equal(rounded(0, 1), rounded(0, 2))
    assert not torch.equal(rounded(0, 1), rounded(1, 1))


def test_chunks_step_as_all_at_once(monkeypatch):
    """With states counted by parameter or by group."""

    def stepped(chunk):
        monkeypatch.setattr("tunewright_hf.training.stochastic_rounding.CHUNK", chunk)
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(7, 5)) for _ in range(4)]  # in fp32: exact
        groups = [{"params": parameters[:3]}, {"params": parameters[3:], "lr": 0.5}]
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        rounding = StochasticRounding(0)
        for _ in range(3):
            for each in parameters:
                each.grad = each.detach() * 2
            rounding.step(optimizer)
        assert [len(group["params"]) for group in optimizer.param_groups] == [3, 1]
        return parameters

    for one, other in zip(stepped(2**26), stepped(40), strict=True):
        assert torch.equal(one, other)


def test_rounding_is_for_pure_bf16():
    with pytest.raises(ValueError, match="stochastic_rounding goes with precision: pure_bf16"):
        Training(stochastic_rounding=True)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """DDP: the same losses within what bf16 rounds."""
    settings = {"max_steps": 4, "batching": "random", **PURE, "stochastic_rounding": True}
    one, _ = run_training(
        tmp_path / "one", loaded(model()), rows(30), per_device_train_batch_size=4, **settings
    )
    written = json.dumps({**settings, "per_device_train_batch_size": 2})
    worker = Path(__file__).parent / "worker.py"
    done = forked.run(worker, str(tmp_path / "two"), written, processes=2)
    assert not any(done.codes), done.error[-3000:]
    two = json.loads(done.output.partition("RESULT ")[2])[0]
    for name in ("loss", "grad_norm"):
        assert [log[name] for log in two] == pytest.approx(
            [log[name] for log in logs_of(one)], rel=2e-2
        )
