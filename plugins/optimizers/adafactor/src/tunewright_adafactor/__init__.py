"""Adafactor: a matrix's second moments kept by rows and columns."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class Adafactor(Optimizer):
    """Second moments kept as one number per row and column of a matrix (Shazeer and Stern 2018,
    arXiv:1804.04235), transformers' implementation. Hardly any state: full fine-tuning where AdamW
    does not fit. `training.learning_rate` is used as it is."""

    class Options(PluginOptions):
        decay_rate: float = Field(-0.8, lt=0)
        """Exponent of the step in the decay of second moments."""
        beta1: float | None = Field(None, ge=0, lt=1)
        """Decay rate of the running mean of gradients. Default: no mean is kept."""
        clip_threshold: float = Field(1.0, gt=0)
        """Largest root mean square of an update."""
        scale_parameter: bool = False
        """Multiply the learning rate by the root mean square of the parameter."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Second moments of rows and columns in float32, and the mean of gradients where kept."""
        factored = len(shape) > 1
        size = math.prod(shape[:-1]) + math.prod((*shape[:-2], shape[-1])) if factored else shape[0]
        return 4 * (size + (math.prod(shape) if self.options.beta1 is not None else 0))

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from transformers.optimization import Adafactor as TransformersAdafactor

        from tunewright_hf.training.param_groups import parameter_groups

        return TransformersAdafactor(
            parameter_groups(request), relative_step=False, **self.options.model_dump()
        )
