"""What stages that hold a model against a reference have in common. Imports no torch."""

from typing import Any

from pydantic import model_validator

from tunewright import PluginOptions, Stage
from tunewright.types import ModelRole

__all__ = [
    "ReferenceOptions",
    "ReferenceStage",
]


class ReferenceModel(PluginOptions):
    reference: str = "start"
    """what the model is held against. start: itself, as it is when the stage begins; base: itself
    without its adapter; else the hub id or folder of another model"""
    reference_quantizer: str | dict[str, Any] | None = None
    """quantizer of another model that is the reference, as the recipe's own section would name it;
    nothing: the recipe's own"""

    @model_validator(mode="after")
    def _is_another(self) -> "ReferenceModel":
        if self.reference_quantizer and self.reference in ("start", "base"):
            raise ValueError("reference_quantizer is for a reference that is another model")
        return self


class ReferenceOptions(ReferenceModel):
    cache_reference: bool = True
    """score all rows with the reference once, before the first step, and keep the numbers in the
    run folder: then no second model is in memory, and no step waits for it. Off: score every batch
    anew, with a second model for start"""


class ReferenceStage(Stage):
    """A stage whose Options are ReferenceOptions."""

    @property
    def models(self) -> tuple[ModelRole, ...]:  # type: ignore[override]
        """A reference only where it is the model as it was, and is asked again in every step."""
        asked_again = self.options.reference == "start" and not self.options.cache_reference
        return ("policy", "reference") if asked_again else ("policy",)
