"""What stages have in common whose answers the model writes itself. Imports no torch."""

from typing import Any

from pydantic import Field, field_validator

from tunewright import Stage
from tunewright.types import ModelRole
from tunewright_hf.training.reference_options import ReferenceModel
from tunewright_hf.training.rewards import check

__all__ = [
    "RolloutOptions",
    "RolloutStage",
]


class RolloutOptions(ReferenceModel):
    rewards: list[str | dict[str, Any]] = Field(
        min_length=1, examples=[[{"name": "length", "target": 20}]]
    )
    """Reward plugins: a name, or a mapping with name, weight (default: 1) and options. On the
    command line, and only there, a name may be that of a function in a file: mine.py:brief. The
    reward of a completion is their weighted sum."""
    max_new_tokens: int = Field(256, ge=1)
    """Maximum tokens of a completion."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of completions. The policy is trained at temperature 1."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: sample from the most likely tokens whose probabilities add up to this. 1:
    from all."""
    top_k: int = Field(0, ge=0)
    """Sample from so many of the most likely tokens. 0: from all."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL divergence from the reference. 0: no reference is loaded."""

    @field_validator("rewards")
    @classmethod
    def _known(cls, rewards: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
        for section in rewards:
            check(section)
        return rewards


class RolloutStage(Stage):
    """A stage whose Options are RolloutOptions."""

    rows = "prompts"

    @property
    def models(self) -> tuple[ModelRole, ...]:  # type: ignore[override]
        """A reference only where it is a model of its own."""
        second = self.options.beta and self.options.reference == "start"
        return ("policy", "reference") if second else ("policy",)
