"""Contexts longer than those of pretraining, by scaled rotary positions."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.events import Notice
from tunewright.plugin import Accelerator
from tunewright.types import LoadedModel, LoadRequest, RunContext

if TYPE_CHECKING:
    from tunewright.check import Resolved

#: rope_type → the fields that only it has
FIELDS = {
    "linear": (),
    "dynamic": (),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "longrope": ("attention_factor", "short_factor", "long_factor"),
}


class RopeScaling(Accelerator):
    """Scales a model's rotary positions, so that it can be trained on, and used with, contexts
    longer than those of its pretraining. The options are fields of transformers' rope_parameters,
    and part of the saved model's config.

    Only the recipe's own model is scaled, once: a later stage continues from the scaled one. Models
    with different rotary positions per layer type are scaled in layers of full attention only.
    """

    class Options(PluginOptions):
        rope_type: Literal["linear", "dynamic", "yarn", "llama3", "longrope"] = "yarn"
        """Method. linear: positions divided by the factor (arXiv:2306.15595). dynamic: the base
        grows with the longest sequence so far (NTK-aware), so a resumed run may differ. yarn: by
        frequency, with rescaled attention (arXiv:2309.00071). llama3: by frequency, as Llama 3.1.
        longrope: a factor per frequency (arXiv:2402.13753), which a search has to give."""
        factor: float | None = Field(None, ge=1, le=4096)
        """Factor by which the context grows. Default: the smallest whole number with which
        training.max_length fits."""
        original_max_position_embeddings: int | None = Field(None, gt=0, le=2**31)
        """Positions of the pretraining. Default: those of the model's config."""
        attention_factor: float | None = Field(None, gt=0, le=100)
        """With yarn or longrope: factor of the attention's logits, by way of queries and keys.
        Default: computed from the factor, as in the papers."""
        beta_fast: float | None = Field(None, gt=0, le=1e6)
        """With yarn: frequencies with more rotations than this in the original context are kept.
        Default: 32."""
        beta_slow: float | None = Field(None, gt=0, le=1e6)
        """With yarn: frequencies with fewer rotations are divided by the factor. Default: 1."""
        mscale: float | None = Field(None, gt=0, le=100)
        """With yarn: numerator of the attention factor, as DeepSeek has it."""
        mscale_all_dim: float | None = Field(None, gt=0, le=100)
        """With yarn: denominator of the attention factor, as DeepSeek has it."""
        low_freq_factor: float | None = Field(None, gt=0, le=1e6)
        """With llama3: frequencies with fewer rotations than this are divided by the factor.
        Default: 1."""
        high_freq_factor: float | None = Field(None, gt=0, le=1e6)
        """With llama3: frequencies with more rotations than this are kept. Default: 4."""
        short_factor: list[float] | None = None
        """With longrope: divisors of the frequencies for contexts of the original length, one for
        every two rotated dimensions of a head."""
        long_factor: list[float] | None = None
        """With longrope: divisors for longer contexts."""

        @model_validator(mode="after")
        def _go_together(self) -> Self:
            own = FIELDS[self.rope_type]
            for name in sorted({name for names in FIELDS.values() for name in names} - set(own)):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is no option of rope_type {self.rope_type}")
            if self.rope_type == "longrope" and not (self.short_factor and self.long_factor):
                raise ValueError("longrope needs short_factor and long_factor")
            if (self.beta_fast or 32) < (self.beta_slow or 1):
                raise ValueError("beta_fast has to be at least beta_slow (defaults: 32 and 1)")
            if (self.high_freq_factor or 4) <= (self.low_freq_factor or 1):
                raise ValueError("high_freq_factor has to exceed low_freq_factor (defaults: 4, 1)")
            return self

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        options = self.options
        longest = max(stage.training.max_length for stage in recipe.stages)
        original = options.original_max_position_embeddings
        if original and options.factor and longest > original * options.factor:
            yield Problem(
                (*self.at, "factor"),
                f"{original} positions × {options.factor:g} are fewer than training.max_length "
                f"{longest}",
                f"set factor: {-(-longest // original)}",
            )

    @hookimpl(wrapper=True)
    def load_model(
        self, run: RunContext, request: LoadRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        # any other model is complete: the result of an earlier stage, scaled, or a reference
        if request.weights == "none" or request.model != run.recipe.model:
            return (yield)
        from tunewright_rope_scaling.scaling import Scaling

        own = run.recipe.training.max_length
        lengths = [stage.training.get("max_length", own) for stage in run.recipe.stages]
        scaling = Scaling(self.options, max(lengths))
        request.config_edits.append(scaling.edit)
        loaded = yield
        tokenizer = loaded.tokenizer
        tokenizer.model_max_length = max(tokenizer.model_max_length, scaling.positions)
        run.emit(Notice(message=scaling.summary))
        return loaded
