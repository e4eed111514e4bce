"""Greedy model soup (Wortsman et al. 2022, arXiv:2203.05482, recipe 1)."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.run import resolve_run
from tunewright.terminal import told
from tunewright.types import RunContext, StageResult
from tunewright_hf.inference.opened_runs import OpenedRun
from tunewright_merge.soup import HeldOut
from tunewright_merge.sources import Source


def ingredients(
    sources: list[Source], loss: Callable[[list[Source]], float], say: Callable[[str], None]
) -> tuple[list[Source], float]:
    """The first model, and each further one with which the loss of the mean of all so far does not
    rise; and the loss of their mean. loss: of the mean of some."""
    kept, least = sources[:1], loss(sources[:1])
    say(f"{sources[0].name}: loss {least:.5g}")
    for each in sources[1:]:
        found = loss([*kept, each])
        stays = found <= least  # NaN: no
        say(f"with {each.name}: loss {found:.5g}, {'kept' if stays else 'left out'}")
        if stays:
            kept, least = [*kept, each], found
    return kept, least


def held_out_loss(model: Path, data: HeldOut, folder: Path, *, trust_remote_code: bool) -> float:
    """Loss of a complete checkpoint on the data, by the evaluator perplexity. folder: for what it
    writes, removed at the end. Raises RecipeError if it is not installed."""
    resolved, _ = resolve_run(data.run, [])
    number, result = len(resolved.stages) - 1, StageResult(model, "model")
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "on_event": told}
    run = OpenedRun(resolved, result, "causal_lm", number, **how)
    evaluator = run.named("evaluator", "perplexity", data=data.name)
    folder.mkdir()
    request = EvaluationRequest(folder, _no_engine, lambda _: None, lambda *_: None)
    try:
        found: EvaluationResult = evaluator.call("evaluate_model", run=run, request=request)
    finally:
        shutil.rmtree(folder)
    loss = found.metrics["loss"]
    return loss if math.isfinite(loss) else math.nan


def _no_engine(run: RunContext) -> NoReturn:
    raise AssertionError("perplexity generates nothing")
