"""Learning-rate schedules: transformers' curves, as plugins with options."""

import pytest
import torch
from training_setup import a_run, loaded, logs_of, model, run_training
from transformers import get_scheduler

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.types import SchedulerRequest

#: name → options
NAMES = {
    "cosine": {},
    "linear": {},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "polynomial": {"power": 2.0, "lr_end": 1e-5},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 4, "min_lr_ratio": 0.1, "decay_type": "1-sqrt"},
}


def curve(build, steps):
    """Learning rates of both groups, step by step. build: makes a scheduler of an optimizer."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": 4e-3}]
    optimizer = torch.optim.SGD(groups, lr=1e-3)
    scheduler, found = build(optimizer), []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def ours(tmp_path, name, warmup, total, **options):
    run = a_run(tmp_path)
    plugin = run.named("scheduler", name, **options)

    def build(optimizer):
        request = SchedulerRequest(optimizer, total, warmup)
        return plugin.call("build_scheduler", run=run, request=request)

    return curve(build, total + 2)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_curves_are_those_of_transformers(tmp_path, name, warmup):
    def build(optimizer):
        return get_scheduler(name, optimizer, warmup, 12, NAMES[name] or None)

    expected, found = curve(build, 14), ours(tmp_path, name, warmup, 12, **NAMES[name])
    if name == "polynomial":  # of which transformers gives each group another final share
        expected, found = ([pair[0] for pair in each] for each in (expected, found))
    if name in ("polynomial", "warmup_stable_decay", "cosine_with_min_lr"):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
    else:
        assert found == expected


def test_final_rates_and_shares(tmp_path):
    last = ours(tmp_path, "cosine_with_min_lr", 0, 10, min_lr=2e-4)[10]
    assert last == pytest.approx([2e-4, 8e-4])
    assert ours(tmp_path, "polynomial", 0, 10, lr_end=5e-4)[-1] == pytest.approx([5e-4, 2e-3])
    shared = ours(tmp_path, "warmup_stable_decay", 0, 10, num_decay_steps=0.4)
    assert shared == ours(tmp_path, "warmup_stable_decay", 0, 10, num_decay_steps=4)
    assert [pair[0] for pair in shared[:7]] == [1e-3] * 7
    assert shared[7][0] < 1e-3
    with pytest.raises(RecipeError, match=r"scheduler.lr_end: is 0.1, above the peak"):
        ours(tmp_path, "polynomial", 0, 10, lr_end=0.1)


def test_either_of_two_options(tmp_path):
    for options in ({}, {"min_lr": 1e-5, "min_lr_rate": 0.1}):
        with pytest.raises(ValueError, match="set either min_lr or min_lr_rate"):
            a_run(tmp_path).named("scheduler", "cosine_with_min_lr", **options)


@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"cosine_with_min_lr", "polynomial"}))
def test_training_takes_them_by_name(tmp_path, name):
    run, _ = run_training(
        tmp_path, loaded(model()), lr_scheduler_type=name, warmup_steps=2, logging_steps=1
    )
    rates = [log["learning_rate"] for log in logs_of(run)]
    expected = ours(tmp_path, name, 2, 6)  # of a peak of 1e-3
    assert rates == pytest.approx([10 * pair[0] for pair in expected[1:7]])


def test_an_unknown_name_is_found_when_the_recipe_is_read():
    recipe = {"model": "tiny", "stage": "pretrain", "family": "qwen", "output": "-"}
    with pytest.raises(RecipeError, match=r"gives the scheduler 'cosin' \(did you mean 'cosine'"):
        resolve(recipe | {"training": {"lr_scheduler_type": "cosin"}})
