"""Reward model of a run."""

from pathlib import Path

import torch

from tunewright import RecipeError, folder
from tunewright.run import open_run
from tunewright.types import LoadedModel, RunContext
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_hf.models import precision
from tunewright_hf.models.modules import base_model
from tunewright_hf.models.weight_sharing import share


class Judge:
    """Scores completions with the reward model of a run folder, beside the policy.

    run: the current run. path: the run folder; None: that of `run`. Raises RecipeError if the
    folder holds no run with a reward model.
    """

    def __init__(self, run: RunContext, policy: LoadedModel | None, path: str | None) -> None:
        self.loaded, self.stop = _load(Path(path) if path else run.folder)
        model = self.loaded.model.eval()
        number_format = precision.resolve(run.recipe.training.precision, model.device)
        precision.set_trained_dtypes(model, number_format)
        base_model(model).score.float()  # fp32, as in training
        if policy is not None:
            share(model, policy.model)
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(number_format)
        self.autocast = torch.autocast(model.device.type, half, enabled=half is not None)

    @torch.no_grad()
    def score(self, prompts: list[str], completions: list[str]) -> list[float]:
        scores, model = [], self.loaded.model
        # one at a time, without padding
        for prompt, text in zip(prompts, completions, strict=True):
            ids = self.loaded.tokenizer(
                prompt + text + self.stop, add_special_tokens=False, return_tensors="pt"
            )
            ids = ids.input_ids.to(model.device)
            with self.autocast:
                inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                scores.append(float(scores_at_the_end(model, model, inputs)))
        return scores


def _load(path: Path) -> tuple[LoadedModel, str]:
    """Load the model, and the token that ended answers in its training."""
    run = open_run(path)
    done = (folder.read(path) or {})["stages"]
    trained = [number for number in range(len(done)) if run.stage(number).head == "score"]
    if not trained:
        raise RecipeError(
            "holds no reward model", place=str(path), hint="train one with stage reward"
        )
    loaded = run.load(head="score", prior=folder.result(path, done[trained[-1]]), trainable=False)
    return loaded, next(iter(run.plugin("template").info.stop), loaded.tokenizer.eos_token)
