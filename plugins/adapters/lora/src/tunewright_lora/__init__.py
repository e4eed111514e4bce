"""Low-rank adapters: LoRA, DoRA, rsLoRA, PiSSA, OLoRA, LoRA+."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tunewright import RecipeError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftOptions
from tunewright_hf.models.peft_lora import LoraAdapter


class Lora(LoraAdapter):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), through PEFT."""

    class Options(PeftOptions):
        rank: int = Field(
            8, ge=1, le=65_536, description="Rank of the update of each weight matrix."
        )
        alpha: int | None = Field(
            None,
            ge=1,
            le=100_000,
            description="Scaling: the update is multiplied by alpha / rank. Default: twice the "
            "rank.",
        )
        dropout: float = Field(
            0.0, ge=0, lt=1, description="Dropout probability of the adapter's inputs in training."
        )
        experts: bool = Field(
            False,
            description="Also adapt the experts of a mixture, which are one parameter per layer. "
            "Requires dropout 0 and no dora.",
        )
        dora: bool = Field(
            False,
            description="Train direction and magnitude of the weights separately (DoRA, Liu et al. "
            "2024, arXiv:2402.09353).",
        )
        rslora: bool = Field(
            False,
            description="Scale by alpha / sqrt(rank) instead (rsLoRA, Kalajdzievski 2023, "
            "arXiv:2312.03732).",
        )
        init: str = Field(
            "default",
            pattern=r"^(default|pissa|pissa_niter_[1-9]\d*|olora)$",
            description="Initialization. default: the adapter has no effect at first. pissa: the "
            "largest singular values of each weight matrix (Meng et al. 2024, arXiv:2404.02948); "
            "pissa_niter_16: the same, approximated in 16 iterations. olora: QR decomposition. "
            "PiSSA and OLoRA change the base weights when they initialise; on save they are "
            "converted to a plain LoRA of rank 2r for the original checkpoint.",
        )
        loraplus_ratio: float | None = Field(
            None,
            gt=0,
            description="Learning rate of matrix B divided by that of matrix A (LoRA+, Hayou et "
            "al. 2024, arXiv:2402.12354). Default: 1.",
        )
        bias: Literal["none", "all", "lora_only"] = Field(
            "none",
            description="Which biases of the model are trained. lora_only: those of the adapted "
            "layers.",
        )

        @model_validator(mode="after")
        def _fits(self) -> "Lora.Options":
            if self.experts and (self.dora or self.dropout):
                raise ValueError("experts cannot be adapted with dora or dropout")
            if self.dora and self.init != "default":
                raise ValueError(f"init {self.init} cannot be made a plain adapter with dora")
            return self

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        from tunewright_hf.models.peft_config import largest_rank
        from tunewright_hf.models.peft_targets import fused_experts

        options, model = self.options, request.loaded.model
        if options.rank > (largest := largest_rank(model)):
            problem = f"{options.rank} is too large: this model takes at most {largest}"
            raise RecipeError(problem, place="adapter.rank", hint="twice the width of its layers")
        return peft.LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha or 2 * options.rank,
            lora_dropout=options.dropout,
            target_modules=self.targets(request.loaded),
            target_parameters=fused_experts(model) if options.experts else None,
            use_dora=options.dora,
            use_rslora=options.rslora,
            bias=options.bias,
            # a model to use is not initialised to be trained
            init_lora_weights=options.init
            if request.trainable and options.init != "default"
            else True,
            **self.common(request),
        )

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        loaded = super().adapt(request)
        if ratio := self.options.loraplus_ratio:
            trained = loaded.trained or ()
            loaded.learning_rate_scales |= {name: ratio for name in trained if "lora_B" in name}
        return loaded
