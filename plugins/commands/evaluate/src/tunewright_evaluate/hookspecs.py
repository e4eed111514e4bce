"""The hook of the kind that `tunewright evaluate` calls: evaluator."""

from typing import TYPE_CHECKING

from tunewright.hookspecs import hookspec
from tunewright.types import RunContext

if TYPE_CHECKING:
    from tunewright import evaluators


@hookspec(firstresult=True)
def evaluate_model(
    run: RunContext, request: "evaluators.EvaluationRequest"
) -> "evaluators.EvaluationResult":
    """Measure a trained model. Kind: evaluator.

    When: by `tunewright evaluate`, once for each run, in turn; for an evaluator with `runs` 2 once
    for each further run, with the first as `run` and the further one as request.other. After an
    interruption it is called again with the same options and folder.

    request.folder: the plugin writes what it finds of each example into it, as JSON lines
    (tunewright_hf.predictions.lines), and nothing elsewhere. The caller writes results.json, a
    table and a chart.

    Returns the metrics. Raises RecipeError if the options or the data do not fit the run, RunError
    if it cannot be evaluated.
    """
    raise NotImplementedError
