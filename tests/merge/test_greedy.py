"""Greedy soups: which checkpoints they take, and what the new folder holds."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from merge.merging import facts, merge, train, weights
from tunewright import RecipeError
from tunewright_hf.inference.opening import open_target
from tunewright_merge.greedy import held_out_loss, ingredients
from tunewright_merge.soup import HeldOut, candidates

#: loss of the mean of some models
LOSSES = {"a": 2.0, "ab": 2.5, "ac": 1.5, "acd": 1.5, "acde": math.nan, "acdf": 1.6}


def test_what_raises_the_loss_is_left_out() -> None:
    """Each is added to those that were kept; an equal loss stays, NaN does not."""
    models: list[Any] = [SimpleNamespace(name=name) for name in "abcdef"]
    said: list[str] = []
    kept, least = ingredients(
        models, lambda some: LOSSES["".join(each.name for each in some)], said.append
    )
    assert ("".join(each.name for each in kept), least) == ("acd", 1.5)
    assert said[:3] == ["a: loss 2", "with b: loss 2.5, left out", "with c: loss 1.5, kept"]


def ranked(run: Path, to: Path, order: list[int]) -> Path:
    """A copy of a run whose evaluations found these steps, best first."""
    shutil.copytree(run, to)
    lines = []
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "Evaluated":
            event["metrics"]["loss"] = float(order.index(event["step"]))
        lines.append(json.dumps(event) + "\n")
    (to / "events.jsonl").write_text("".join(lines))
    return to


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [4, 3, 2, 1]])
def test_a_greedy_soup(tuned: list[Path], tmp_path: Path, order: list[int]) -> None:
    """The mean of what it kept, with the loss that it says, which is never above the best one's."""
    run = ranked(tuned[0], tmp_path / "run", order)
    to = tmp_path / "soup"
    done = merge(run, "--soup", "greedy", "--output", to)
    found = facts(to)
    kept = [int(each["name"].rpartition("-")[2]) for each in found["models"]]
    assert kept[0] == order[0]
    assert kept == [step for step in order if step in kept]
    # later steps of this run are better: from the first on, each improves the mean
    assert (len(kept) == 4) == (order[0] == 1)
    assert len(kept) < 4 or done.output.count(", kept") == 3
    assert done.output.count("left out") == 4 - len(kept)
    models = [
        open_target(str(run / f"checkpoints/step-{step}")).load_policy().model for step in kept
    ]
    states = [dict(model.named_parameters()) for model in models]
    for name, tensor in weights(to).items():
        mean = sum(state[name] for state in states) / len(kept)
        assert torch.allclose(tensor, mean, atol=1e-6), name
    data = HeldOut(run, "held")
    loss = held_out_loss(to, data, tmp_path / "lines", trust_remote_code=False)
    options = found["options"]
    assert options == {"soup": "greedy", "data": "held", "loss": pytest.approx(loss)}
    first, best_of_all = tmp_path / "first", run / f"checkpoints/step-{order[0]}"
    merge(best_of_all, best_of_all, "--output", first)
    best = held_out_loss(first, data, tmp_path / "lines", trust_remote_code=False)
    assert loss <= best
    assert not list(tmp_path.glob(".*"))
    assert not (to / ".parts").exists()


def test_adapters_of_checkpoints(base: Path, tmp_path: Path) -> None:
    more = {"save_steps": 1, "eval_steps": 1, "max_steps": 3, "save_total_limit": 3}
    run = train(tmp_path, str(base / "model"), adapter={"name": "lora", "rank": 4}, **more)
    merge(run, "--soup", "greedy", "--output", tmp_path / "soup")
    assert open_target(str(tmp_path / "soup")).load_policy().model is not None


def test_a_dry_run_says_what_decides(tuned: list[Path], tmp_path: Path) -> None:
    done = merge(tuned[0], "--soup", "greedy", "--output", tmp_path / "to", "--dry-run")
    assert "those of them that do not raise the loss on held" in done.output
    assert not (tmp_path / "to").exists()


def test_mistakes(tuned: list[Path], tmp_path: Path) -> None:
    run = ranked(tuned[0], tmp_path / "run", [1, 2, 3, 4])
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(each for each in lines if "Evaluated" not in each))
    with pytest.raises(RecipeError, match="two checkpoints of steps that were evaluated, found"):
        candidates(run)
