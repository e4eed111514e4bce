"""Inputs of PaliGemma beside those of its processor."""

from typing import Any

from torch import Tensor

from tunewright import RunError

__all__ = ["token_types"]


def token_types(inputs: dict[str, Tensor], labels: Tensor, processor: Any) -> dict[str, Tensor]:
    """1 for the answer, which is causal, 0 for what is before it, which is seen as a whole (Beyer
    et al. 2024, arXiv:2407.07726). Without them the model would see the answer that it is to write.

    Raises RunError for a padded row with more than one answer: the first question would see the
    second one, and through it the first answer.
    """
    trained = labels != -100  # (B, T)
    if "attention_mask" in inputs:
        asked_again = (trained[:, :-1] & ~trained[:, 1:]) & inputs["attention_mask"][:, 1:].bool()
        if asked_again.any():
            problem = "PaliGemma takes one question with one answer, and this row goes on after it"
            raise RunError(problem, place="data", hint="leave conversations of several turns out")
    return {"token_type_ids": trained.long()}
