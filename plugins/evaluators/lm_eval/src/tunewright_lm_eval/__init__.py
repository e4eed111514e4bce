"""Benchmarks of the LM Evaluation Harness, such as MMLU, C-Eval and CMMLU."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import Evaluator, PluginOptions, hookimpl
from tunewright.types import RunContext

if TYPE_CHECKING:
    from tunewright.evaluators import EvaluationRequest, EvaluationResult


class LmEval(Evaluator):
    """Tasks of the LM Evaluation Harness, with the run's own chat template. Metrics are the
    harness's: a task's accuracy is a share, from 0 to 1."""

    class Options(PluginOptions):
        tasks: str | list[str] = Field(examples=["mmlu"])
        """Names of tasks, groups or tags, such as mmlu, ceval-valid, cmmlu, or gsm8k."""
        data_folder: str | None = Field(None, min_length=1)
        """Folder with the data sets' files, which the tasks read in place of a hub: as the sets are
        published (dev/NAME_dev.csv), or as on Hugging Face (NAME/dev-00000-of-00001.parquet);
        several sets each in a folder of its name."""
        num_fewshot: int | None = Field(None, ge=0)
        """Solved examples before each question. Default: the task's own number, else 0."""
        limit: int | None = Field(None, ge=1)
        """Examples of each task, from the start."""
        chat_template: bool = True
        """Whether questions are messages in the run's template. False: plain text, for base
        models."""
        fewshot_as_multiturn: bool = True
        """Whether solved examples are turns of their own. False: all stand in one message."""
        system: str | None = None
        """System message."""
        batch_size: int = Field(8, ge=1, json_schema_extra={"may_change": True})
        """Requests in one pass of the model."""
        max_length: int | None = Field(None, ge=1)
        """Tokens of a request; longer ones lose their beginning. Default: the model's."""
        include_path: str | None = None
        """Folder with further tasks. Their files may name Python code, which is run."""
        seed: int = Field(1234, ge=0)
        """Seed by which examples are drawn, where a task draws them."""

    def identity(self, run: RunContext) -> dict[str, Any]:
        from tunewright_lm_eval.layouts import folder_digest

        folder = self.options.data_folder
        return {"files": folder_digest(Path(folder).expanduser()) if folder else None}

    @hookimpl
    def evaluate_model(self, run: RunContext, request: "EvaluationRequest") -> "EvaluationResult":
        from tunewright_lm_eval.benchmarks import evaluate

        return evaluate(run, request, self.options)
