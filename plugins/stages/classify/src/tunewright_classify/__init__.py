"""Text classification and regression."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest


class Classify(Stage):
    """Train a classifier of texts, or a model that gives a number for a text. A new head reads the
    state of the last token. Text is encoded without a template. transformers loads the result as
    AutoModelForSequenceClassification."""

    rows = "labelled"
    head = "classes"
    eval_metrics = ("loss", "accuracy", "f1", "mse", "pearson")

    class Options(PluginOptions):
        model_config = ConfigDict(
            json_schema_extra={"examples": [{"labels": ["negative", "positive"]}]}
        )

        problem: Literal["single_label", "multi_label", "regression"] = "single_label"
        """single_label: a text has one of the classes (cross-entropy). multi_label: any of them
        (binary cross-entropy for each). regression: a number (squared error)."""
        labels: list[str] = Field([], examples=[["negative", "positive"]])
        """Names of the classes, in the order of the outputs. A label of the data that is no name,
        but a whole number, is an index: 0 is the first. Empty for a regression."""

        @model_validator(mode="after")
        def _check(self) -> "Classify.Options":
            least = {"single_label": 2, "multi_label": 1, "regression": 0}[self.problem]
            if self.problem == "regression" and self.labels:
                raise ValueError("a regression has no classes: leave labels out")
            if len(self.labels) < least:
                raise ValueError(f"labels: name the classes of the data, at least {least}")
            if len(set(self.labels)) < len(self.labels):
                raise ValueError("labels: a class is named twice")
            return self

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.options.labels) or ("value",)

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_classify.training import train

        return train(run, request, self.options, self.name)
