"""Evaluators: perplexity, generated answers, rewards, a judge, and pairs of runs."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tunewright import Evaluator, PluginOptions, hookimpl
from tunewright.types import RunContext

if TYPE_CHECKING:
    from tunewright.evaluators import EvaluationRequest, EvaluationResult

#: for results: an interrupted evaluation may go on with another value
_MAY_CHANGE: dict[str, Any] = {"may_change": True}
Metric = Literal[
    "exact_match", "accuracy", "f1", "bleu", "chrf", "rouge", "json_valid", "tool_calls"
]


class DataOptions(PluginOptions):
    """Options of evaluators that read data."""

    data: str | dict[str, Any] | None = None
    """A file; the name of a set of the recipe's eval_data, or `data`; or a source as a mapping.
    Default: the recipe's only set of eval_data."""
    limit: int | None = Field(None, ge=1)
    """Examples to evaluate, from the start."""


class AnswerOptions(DataOptions):
    """Options of evaluators that generate answers."""

    max_new_tokens: int = Field(512, ge=1)
    """Maximum tokens of an answer."""
    temperature: float | None = Field(None, ge=0)
    """Sampling temperature. 0: greedy decoding. Default: the checkpoint's, else 0."""
    seed: int = Field(42, ge=0)
    """Seed of sampling."""


class EndpointOptions(AnswerOptions):
    """Options of evaluators that ask a model behind an OpenAI-compatible API."""

    url: str = Field(
        "http://127.0.0.1:8000/v1", pattern=r"^https?://", json_schema_extra=_MAY_CHANGE
    )
    """Base address of the API. Prompts and answers leave the machine unless it is local."""
    model: str = "judge"
    """Name of the judging model."""
    token_variable: str | None = Field(None, json_schema_extra=_MAY_CHANGE)
    """Environment variable with the token that is sent as `Authorization: Bearer`."""
    workers: int = Field(8, ge=1, le=256, json_schema_extra=_MAY_CHANGE)
    """Requests at once."""
    timeout: float = Field(120.0, gt=0, le=86_400, json_schema_extra=_MAY_CHANGE)
    """Seconds for a reply."""
    retries: int = Field(4, ge=0, le=100, json_schema_extra=_MAY_CHANGE)
    """Further attempts after a refusal (429), a server's error or a lost connection."""


class _WithData(Evaluator):
    """Evaluator whose results depend on data."""

    def identity(self, run: RunContext) -> dict[str, Any]:
        from tunewright_evaluators.answers import examples

        return {"examples": examples(run, self.options).digest}


class Perplexity(_WithData):
    """Loss and perplexity of the answers in the data, over the tokens that training would train. A
    row's loss is the mean of its tokens."""

    class Options(DataOptions):
        batch_tokens: int = Field(4096, ge=1, json_schema_extra=_MAY_CHANGE)
        """Tokens of a batch, padding included."""

    @hookimpl
    def evaluate_model(self, run: RunContext, request: "EvaluationRequest") -> "EvaluationResult":
        from tunewright_evaluators.perplexity import evaluate

        return evaluate(run, request, self.options)


class Generation(_WithData):
    """Generated answers against those of the data, in percent. Each metric is taken over the rows
    that it applies to: json_valid over those whose answer is JSON, tool_calls over those with tool
    calls on either side."""

    class Options(AnswerOptions):
        metrics: list[Metric] | None = Field(None, min_length=1)
        """Metrics. Default: all that apply to some row."""
        classes: list[str] | None = Field(None, min_length=2)
        """Names of classes, for classification: accuracy then asks for the same class, and macro_f1
        is added."""

    @hookimpl
    def evaluate_model(self, run: RunContext, request: "EvaluationRequest") -> "EvaluationResult":
        from tunewright_evaluators.generation import evaluate

        return evaluate(run, request, self.options)


class RewardScore(_WithData):
    """Score of generated answers by a reward function or a reward model."""

    class Options(AnswerOptions):
        reward: str | dict[str, Any] = Field(examples=[{"name": "length", "target": 200}])
        """Reward plugin by name, or a mapping with its name and options; the run folder of a reward
        model; or a function in a Python file, mine.py:brief. Rows give it their columns, and the
        answer of the data as `answer`."""

    @hookimpl
    def evaluate_model(self, run: RunContext, request: "EvaluationRequest") -> "EvaluationResult":
        from tunewright_evaluators.rewarded import evaluate

        return evaluate(run, request, self.options)


class Judge(_WithData):
    """Score of generated answers by a model behind an OpenAI-compatible API."""

    class Options(EndpointOptions):
        criteria: str = "helpfulness, correctness, and clarity"
        """Criteria that the judge is told."""
        highest: int = Field(10, ge=2, le=100)
        """Highest score; the lowest is 1."""

    @hookimpl
    def evaluate_model(self, run: RunContext, request: "EvaluationRequest") -> "EvaluationResult":
        from tunewright_evaluators.judge import evaluate

        return evaluate(run, request, self.options)


class Pairwise(_WithData):
    """Win rate of the first run's answers over the second's, in percent, with its 95 % confidence
    interval (Wilson). A judge sees each pair in both orders; where its verdicts differ, it is a
    tie."""

    runs = 2

    class Options(EndpointOptions):
        criteria: str = "helpfulness, correctness, and clarity"
        """Criteria that the judge is told."""
        reward: str | dict[str, Any] | None = None
        """Reward that decides in place of a judge, as for the evaluator reward: the higher one
        wins."""

    @hookimpl
    def evaluate_model(self, run: RunContext, request: "EvaluationRequest") -> "EvaluationResult":
        from tunewright_evaluators.pairwise import evaluate

        return evaluate(run, request, self.options)
