"""Options of stages with a reference model. Imports no torch."""

from typing import Any

from pydantic import Field, model_validator

from tunewright import PluginOptions, Stage
from tunewright.types import ModelRole

__all__ = [
    "ReferenceOptions",
    "ReferenceStage",
]


class ReferenceModel(PluginOptions):
    reference: str = Field("start", json_schema_extra={"widget": "path"})
    """Reference model. start: the policy at the beginning of the stage. base: the policy without
    its adapter. Else the hub id or folder of another model."""
    reference_quantizer: str | dict[str, Any] | None = None
    """Quantizer of a reference that is another model, as the recipe's section `quantizer` names
    one. Default: the recipe's own."""

    @model_validator(mode="after")
    def _is_another(self) -> "ReferenceModel":
        if self.reference_quantizer and self.reference in ("start", "base"):
            raise ValueError("reference_quantizer is for a reference that is another model")
        return self


class ReferenceOptions(ReferenceModel):
    cache_reference: bool = True
    """Compute the reference log-probabilities of all rows once, before the first step, and keep
    them in the run folder: no second model is in memory. false: compute them for every batch, with
    a second model for start."""


class ReferenceStage(Stage):
    """A stage whose Options are ReferenceOptions."""

    @property
    def models(self) -> tuple[ModelRole, ...]:  # type: ignore[override]
        """Needs a reference only if it is the unchanged model, asked again in every step."""
        asked_again = self.options.reference == "start" and not self.options.cache_reference
        return ("policy", "reference") if asked_again else ("policy",)
