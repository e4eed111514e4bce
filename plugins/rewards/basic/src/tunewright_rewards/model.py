"""Reward model of a run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tunewright import RecipeError, RowError, folder
from tunewright.run import open_run
from tunewright.types import LoadedModel, Rendered, RunContext, Span
from tunewright_hf.batching.collators import Padded
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_hf.media.collation import media_rows
from tunewright_hf.models import precision
from tunewright_hf.models.modules import base_model
from tunewright_hf.models.weight_sharing import share
from tunewright_hf.tokenization.encode import Tokeniser


class Judge:
    """Scores completions with the reward model of a run folder, beside the policy.

    run: the current run. path: the run folder; None: that of `run`. Raises RecipeError if the
    folder holds no run with a reward model.
    """

    def __init__(self, run: RunContext, policy: LoadedModel | None, path: str | None) -> None:
        if path is None and run.scorer is not None:  # also on hosts that do not see the run folder
            self.loaded = run.load(head="score", prior=run.scorer, trainable=False)
            info = run.plugin("template").info
        else:
            self.loaded, info = _load(Path(path) if path else run.folder)
        self.stop = next(iter(info.stop), self.loaded.tokenizer.eos_token)
        self._media = media_rows(self.loaded)
        self._tokeniser = Tokeniser(self.loaded.tokenizer, info)
        model = self.loaded.model.eval()
        number_format = precision.resolve(run.recipe.training.precision, model.device)
        precision.set_trained_dtypes(model, number_format)
        base_model(model).score.float()  # fp32, as in training
        if policy is not None:
            share(model, policy.model)
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(number_format)
        self.autocast = torch.autocast(model.device.type, half, enabled=half is not None)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[str], completions: Sequence[str], media: Sequence[list[Any]] = ()
    ) -> list[float | None]:
        """Score of each completion; None where a prompt spells the token that stands for a medium.

        prompts: rendered, with one placeholder for each of `media` (structs {kind, path}), which a
        reward model without media reads as text. Raises RunError if a medium cannot be read.
        """
        scores: list[float | None] = []
        model, own = self.loaded.model, media or [[]] * len(prompts)
        # one at a time, without padding
        for prompt, text, parts in zip(prompts, completions, own, strict=True):
            inputs = self._inputs(prompt, text + self.stop, parts)
            if inputs is None:
                scores.append(None)
                continue
            inputs = {name: each.to(model.device) for name, each in inputs.items()}
            with self.autocast:
                scores.append(float(scores_at_the_end(model, model, inputs)))
        return scores

    def _inputs(self, prompt: str, answer: str, parts: list[Any]) -> dict[str, Any] | None:
        if self._media is None:
            ids = self.loaded.tokenizer(
                prompt + answer, add_special_tokens=False, return_tensors="pt"
            ).input_ids
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        end = len(prompt)
        tokens = map(re.escape, self._media.media.tokens.values())
        spelled = [
            Span(end + found.start(), end + found.end())
            for found in re.finditer("|".join(tokens), answer)
        ]
        whole = Rendered(prompt + answer, [Span(end, end + len(answer))], answers=spelled)
        media = self._media.read_all(parts)
        try:
            whole = self._media.media.expand(whole, [medium.shape for medium in media])
        except RowError:
            return None
        encoded = self._tokeniser.encode(whole)
        row = {"input_ids": encoded.input_ids, "labels": encoded.labels, "media": media}
        inputs: dict[str, Any] = Padded(0, media=self._media)([row])["inputs"]
        return inputs


def _judges(stage: Any) -> bool:
    """Whether a stage trains a model that scores answers: a reranker reads other texts."""
    return stage.head == "score" and not stage.embedding.pair_prompt


def _load(path: Path) -> tuple[LoadedModel, Any]:
    """Load the model, and what is known of the template in its training."""
    run = open_run(path)
    done = (folder.read(path) or {})["stages"]
    trained = [number for number in range(len(done)) if _judges(run.stage(number))]
    if not trained:
        raise RecipeError(
            "holds no reward model", place=str(path), hint="train one with stage reward"
        )
    loaded = run.load(head="score", prior=folder.result(path, done[trained[-1]]), trainable=False)
    return loaded, run.plugin("template").info
