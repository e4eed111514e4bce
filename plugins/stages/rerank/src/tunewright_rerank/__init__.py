"""Rerankers: scores of documents for a query."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import Embedding, RunContext, StageResult, TrainRequest


def _has_both(prompt: str) -> str:
    for name in ("{query}", "{document}"):
        if prompt.count(name) != 1:
            raise ValueError(f"expected {name} once, found it {prompt.count(name)} times")
    return prompt


class Rerank(Stage):
    """Train a reranker (cross-encoder): it reads a query with a document as one text, and its new
    head scores them at the last token. Every row needs a document that does not fit, besides the
    one that does."""

    rows = "retrieval"
    head = "score"
    eval_metrics = ("loss", "accuracy", "mrr@10", "ndcg@10")

    class Options(PluginOptions):
        loss: Literal["softmax", "listnet", "ranknet", "margin", "bce"] = "softmax"
        """Listwise: softmax is the negative log-probability of the fitting document among those of
        its row (Gao et al. 2021, arXiv:2101.08751); listnet compares with the softmax of 1 for that
        document and 0 for the others (Cao et al. 2007). Pairwise: ranknet is the negative log-odds
        of it against each other (Burges et al. 2005); margin the hinge loss of the difference.
        Pointwise: bce is binary cross-entropy of each document."""
        margin: float | None = Field(None, gt=0)
        """With loss margin: by how much the fitting document should score higher. Default: 1."""
        prompt: Annotated[str, AfterValidator(_has_both)] = (
            "Query: {query}\nDocument: {document}\nRelevance:"
        )
        """Text of a query with a document, in training, serving and exports. No template is
        applied."""

        @model_validator(mode="after")
        def _check(self) -> "Rerank.Options":
            if self.margin is not None and self.loss != "margin":
                raise ValueError(f"margin: loss {self.loss} has none (leave it out)")
            return self

    @property
    def embedding(self) -> Embedding:
        return Embedding(pair_prompt=self.options.prompt)

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_rerank.training import train

        return train(run, request, self.options, self.name)
