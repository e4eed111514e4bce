"""Text embeddings, from queries with documents that fit them."""

from typing import Annotated, Literal

from pydantic import Field

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import Embedding, RunContext, StageResult, TrainRequest


class Embed(Stage):
    """Train vectors of texts: a query's is nearer to that of its document than to those of all
    other documents of the step, on all devices (InfoNCE: van den Oord et al. 2018,
    arXiv:1807.03748; Henderson et al. 2017, arXiv:1705.00652). Negatives of the rows count among
    these.

    Text is encoded without a template. The gradients do not depend on how a step is split into
    passes and devices (GradCache: Gao et al. 2021, arXiv:2101.06983).
    """

    rows = "retrieval"
    eval_metrics = ("loss", "accuracy", "mrr@10", "ndcg@10")

    class Options(PluginOptions):
        pooling: Literal["mean", "lasttoken", "cls"] = "mean"
        """State of a text in the last layer. mean: over its tokens. lasttoken, cls: of its last or
        first token; a model that looks back only needs lasttoken or mean."""
        temperature: float = Field(0.05, gt=0)
        """Divides cosine similarities. Lower: only the hardest negatives count."""
        matryoshka: list[Annotated[int, Field(ge=1)]] = Field([], examples=[[256, 64]])
        """Shorter vectors, the first numbers of a vector, that are trained too (Kusupati et al.
        2022, arXiv:2205.13147). The loss is the mean over all lengths."""
        symmetric: bool = False
        """Also find the query of each document among the step's queries."""
        query_prompt: str = Field("", examples=["query: "])
        """Text before each query, in training and exports. Clients of a server write it
        themselves."""
        document_prompt: str = Field("", examples=["passage: "])
        """Text before each document, likewise."""

    @property
    def embedding(self) -> Embedding:
        options = self.options
        prompts = options.query_prompt, options.document_prompt
        return Embedding(options.pooling, True, *prompts)

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_embed.training import train

        return train(run, request, self.options, self.embedding, self.name)
