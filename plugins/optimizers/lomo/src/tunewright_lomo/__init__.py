"""LOMO and AdaLomo: updates inside the backward pass, so that gradients are never held."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class Lomo(Optimizer):
    """SGD inside the backward pass: each gradient is used and freed at once (Lv et al. 2023,
    arXiv:2306.09782). No optimizer state, and one layer's gradients: full fine-tuning in little
    more memory than the weights take. Needs gradient_accumulation_steps 1 and max_grad_norm 0.
    Weight decay is coupled: it is added to the gradient.
    """

    steps_in_backward = True

    class Options(PluginOptions):
        pass

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        return 0

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from torch.optim import SGD

        from tunewright_hf.distributed.layerwise import LayerwiseOptimizer
        from tunewright_hf.training.param_groups import parameter_groups

        return LayerwiseOptimizer(parameter_groups(request), SGD)


class AdaLomo(Optimizer):
    """LOMO with Adafactor's second moments and normalised updates (Lv et al. 2023,
    arXiv:2310.10195): hardly any state. Needs gradient_accumulation_steps 1 and max_grad_norm 0.
    The learning rate is relative to a matrix's root mean square, about 5e-4 for fine-tuning.
    """

    steps_in_backward = True

    class Options(PluginOptions):
        decay_rate: float = Field(-0.8, lt=0)
        """Exponent of the step in the decay of second moments."""
        clip_threshold: float = Field(1.0, gt=0)
        """Largest root mean square of an update."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Second moments of rows and columns, in float32."""
        if len(shape) < 2:
            return 4 * math.prod(shape)
        return 4 * (math.prod(shape[:-1]) + math.prod((*shape[:-2], shape[-1])))

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from transformers.optimization import Adafactor

        from tunewright_hf.distributed.layerwise import LayerwiseOptimizer
        from tunewright_hf.training.param_groups import parameter_groups

        def build(groups: list[dict[str, Any]]) -> Any:
            # Adafactor without momentum, whose rate is relative to the parameter, is AdaLomo's rule
            options = self.options.model_dump()
            return Adafactor(groups, relative_step=False, scale_parameter=True, **options)

        return LayerwiseOptimizer(parameter_groups(request), build)
