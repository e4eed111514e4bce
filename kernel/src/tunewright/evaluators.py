"""Request and result of an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunewright.inference import InferenceEngine
from tunewright.run_context import RunContext

__all__ = ["EvaluationRequest", "EvaluationResult"]


@dataclass(slots=True)
class EvaluationRequest:
    """A trained model that is evaluated."""

    #: exists; the evaluator writes its files into it, and finds those of an interrupted evaluation
    #: with the same options
    folder: Path
    #: opens the inference engine that the user chose for a run; the caller closes it
    open_engine: Callable[[RunContext], InferenceEngine]
    say: Callable[[str], None]  # prints one line for the user
    progress: Callable[[str, int, int], None]  # what is done, number done, total
    other: RunContext | None = None  # the second run, for evaluators that compare two


@dataclass(slots=True)
class EvaluationResult:
    metrics: dict[str, float]  # name → value
    rows: int  # examples that were evaluated
    errors: int = 0  # examples that could not be
    #: metrics of parts, such as the tasks of a benchmark: part → name → value
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    #: half width of the 95 % confidence interval of a metric, where it is known
    margins: dict[str, float] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)  # where False: loss, perplexity
