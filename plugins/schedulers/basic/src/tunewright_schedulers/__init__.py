"""Learning-rate schedules. All warm up linearly from 0; the formulas are in curves.py."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from tunewright import PluginOptions, Scheduler, hookimpl
from tunewright.types import RunContext, SchedulerRequest


class _Curve(Scheduler):
    """A schedule that is a function of the step."""

    def factor(self, request: SchedulerRequest, step: int) -> float:
        """Share of the peak learning rate at this step; 0 is the first."""
        raise NotImplementedError

    @hookimpl
    def build_scheduler(self, run: RunContext, request: SchedulerRequest) -> Any:
        from functools import partial

        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(request.optimizer, partial(self.factor, request))


class Cosine(_Curve):
    """Fall along a cosine (Loshchilov and Hutter 2016, arXiv:1608.03983)."""

    class Options(PluginOptions):
        num_cycles: float = Field(0.5, gt=0)
        """Waves of the cosine. 0.5: from the peak to 0."""

    def factor(self, request: SchedulerRequest, step: int) -> float:
        from tunewright_schedulers.curves import cosine

        return cosine(step, request.warmup_steps, request.total_steps, self.options.num_cycles)


class Linear(_Curve):
    """Fall linearly to 0."""

    def factor(self, request: SchedulerRequest, step: int) -> float:
        from tunewright_schedulers.curves import linear

        return linear(step, request.warmup_steps, request.total_steps)


class Constant(_Curve):
    """Keep the learning rate, without warm-up."""

    needs_total_steps = False
    deviations: ClassVar = {"test_warm_up": "It has no warm-up, by definition."}

    def factor(self, request: SchedulerRequest, step: int) -> float:
        return 1.0


class ConstantWithWarmup(_Curve):
    """Keep the learning rate after warm-up."""

    needs_total_steps = False

    def factor(self, request: SchedulerRequest, step: int) -> float:
        from tunewright_schedulers.curves import constant_with_warmup

        return constant_with_warmup(step, request.warmup_steps)


class InverseSqrt(_Curve):
    """Fall with the inverse square root of the step (Vaswani et al. 2017, arXiv:1706.03762)."""

    needs_total_steps = False

    class Options(PluginOptions):
        timescale: int | None = Field(None, gt=0)
        """Steps after which the learning rate has fallen to 1/sqrt(2). Default: warm-up steps, or
        10000 without warm-up."""

    def factor(self, request: SchedulerRequest, step: int) -> float:
        from tunewright_schedulers.curves import inverse_sqrt

        return inverse_sqrt(step, request.warmup_steps, self.options.timescale)


class Polynomial(_Curve):
    """Fall to a final learning rate along a polynomial."""

    class Options(PluginOptions):
        lr_end: float = Field(1e-7, ge=0)
        """Final learning rate. Parameters whose rate is scaled end at the same share of theirs."""
        power: float = Field(1.0, gt=0)
        """Exponent. 1: linear."""

    @hookimpl
    def build_scheduler(self, run: RunContext, request: SchedulerRequest) -> Any:
        from functools import partial

        from torch.optim.lr_scheduler import LambdaLR

        from tunewright_schedulers.curves import end_rate, polynomial

        rate = end_rate(request.optimizer, self.options.lr_end, "lr_end")
        steps, total = request.warmup_steps, request.total_steps
        curve = partial(polynomial, warmup=steps, total=total, rate=rate, power=self.options.power)
        return LambdaLR(request.optimizer, curve)


class CosineWithMinLr(_Curve):
    """Fall along a cosine to a final learning rate above 0."""

    class Options(PluginOptions):
        model_config = ConfigDict(json_schema_extra={"examples": [{"min_lr_rate": 0.1}]})

        min_lr: float | None = Field(None, ge=0)
        """Final learning rate."""
        min_lr_rate: float | None = Field(None, ge=0, le=1)
        """Final learning rate as a share of the peak."""
        num_cycles: float = Field(0.5, gt=0)
        """Waves of the cosine. 0.5: from the peak to the final learning rate."""

        @model_validator(mode="after")
        def _one_of_both(self) -> "CosineWithMinLr.Options":
            if (self.min_lr is None) == (self.min_lr_rate is None):
                raise ValueError("set either min_lr or min_lr_rate")
            return self

    @hookimpl
    def build_scheduler(self, run: RunContext, request: SchedulerRequest) -> Any:
        from functools import partial

        from torch.optim.lr_scheduler import LambdaLR

        from tunewright_schedulers.curves import cosine_with_min_lr, end_rate

        options, steps, total = self.options, request.warmup_steps, request.total_steps
        rate = options.min_lr_rate
        if rate is None:
            rate = end_rate(request.optimizer, options.min_lr, "min_lr")
        curve = partial(
            cosine_with_min_lr, warmup=steps, total=total, rate=rate, cycles=options.num_cycles
        )
        return LambdaLR(request.optimizer, curve)


class WarmupStableDecay(_Curve):
    """Keep the learning rate after warm-up, and decay it at the end (WSD; Hu et al. 2024,
    arXiv:2404.06395)."""

    class Options(PluginOptions):
        num_decay_steps: float = Field(0.1, gt=0)
        """Optimizer steps of the decay, or their share of all when below 1."""
        warmup_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
        """Curve of the warm-up."""
        decay_type: Literal["linear", "cosine", "1-sqrt"] = "cosine"
        """Curve of the decay."""
        min_lr_ratio: float = Field(0.0, ge=0, le=1)
        """First and final learning rate as a share of the peak."""
        num_cycles: float = Field(0.5, gt=0)
        """Waves of a cosine decay. 0.5: from the peak to the final learning rate."""

    def factor(self, request: SchedulerRequest, step: int) -> float:
        from tunewright_schedulers.curves import warmup_stable_decay

        return warmup_stable_decay(step, request.warmup_steps, request.total_steps, self.options)
