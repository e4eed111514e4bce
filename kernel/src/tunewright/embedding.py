"""Texts of queries and documents, and computation of their vectors."""

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Embedding", "Pooling"]

Pooling = Literal["mean", "lasttoken", "cls"]


@dataclass(frozen=True, slots=True)
class Embedding:
    """Texts of queries and documents, and computation of a text's vector from the states of the
    model's last layer."""

    #: mean: over the tokens. lasttoken, cls: state of the last or of the first token
    pooling: Pooling = "mean"
    normalize: bool = True  # scale vectors to length 1
    query_prompt: str = ""  # text before each query
    document_prompt: str = ""  # text before each document
    #: of a reranker, which reads a query and a document as one text: that text, with {query} and
    #: {document}. Empty: they are read one by one
    pair_prompt: str = ""

    def pair(self, query: str, document: str) -> str:
        """The text of a query with a document, by pair_prompt."""
        texts = {"{query}": query, "{document}": document}
        parts = re.split(r"(\{query\}|\{document\})", self.pair_prompt)
        return "".join(texts.get(part, part) for part in parts)
