"""Computation of vectors of texts."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Embedding", "Pooling"]

Pooling = Literal["mean", "lasttoken", "cls"]


@dataclass(frozen=True, slots=True)
class Embedding:
    """Computation of the vector of a text from the states of the model's last layer."""

    #: mean: over the tokens. lasttoken, cls: state of the last or of the first token
    pooling: Pooling = "mean"
    normalize: bool = True  # scale vectors to length 1
    query_prompt: str = ""  # text before each query
    document_prompt: str = ""  # text before each document
