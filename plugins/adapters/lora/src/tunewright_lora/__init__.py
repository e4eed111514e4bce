"""Low-rank adapters: LoRA, DoRA, rsLoRA, PiSSA, OLoRA, LoRA+."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tunewright import RecipeError, RunError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import (
    DROPOUT,
    FLAG,
    NAMES,
    RANK,
    SCALE,
    Check,
    by_module,
    is_name,
    one_of,
)


class Lora(PeftAdapter):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), through PEFT."""

    peft_type = "LORA"
    config_fields: ClassVar[dict[str, Check]] = {
        "r": RANK,
        "lora_alpha": SCALE,
        "lora_dropout": DROPOUT,
        "target_parameters": NAMES,
        "bias": one_of("none", "all", "lora_only"),
        "use_rslora": FLAG,
        "use_dora": FLAG,
        "rank_pattern": by_module(RANK),
        "alpha_pattern": by_module(SCALE),
    }

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
        from tunewright_lora.experts import fused_experts

        options, model = self.options, request.loaded.model
        if options.rank > (largest := largest_rank(model)):
            problem = f"{options.rank} is too large: the model's layers have at most rank {largest}"
            raise RecipeError(problem, place="adapter.rank")
        return peft.LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha or 2 * options.rank,
            lora_dropout=options.dropout,
            target_modules=self.targets(request.loaded),
            target_parameters=fused_experts(model) if options.experts else None,
            use_dora=options.dora,
            use_rslora=options.rslora,
            bias=options.bias,
            init_lora_weights=options.init if self._changes_base(request) else True,
            **self.common(request),
        )

    def check_config(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        init = found.get("init_lora_weights", True)
        if init not in (True, False, "gaussian", "orthogonal", "eva"):
            raise RunError(
                f"belongs to weights that {init if is_name(init) else 'something'} changed",
                place=place,
                hint="save it with PEFT's path_initial_model_for_weight_conversion; tunewright's "
                "own are saved so",
            )
        # both tell how the adapter began
        return {k: v for k, v in found.items() if k not in ("init_lora_weights", "eva_config")}

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        loaded = super().adapt(request)
        if self._changes_base(request):
            from tunewright_lora.plain import save_as_plain

            save_as_plain(loaded.model)
        if ratio := self.options.loraplus_ratio:
            trained = loaded.trained or ()
            loaded.learning_rate_scales |= {name: ratio for name in trained if "lora_B" in name}
        return loaded

    def _changes_base(self, request: AdapterRequest) -> bool:
        """Return whether the initialisation changes the model's weights."""
        return bool(
            self.options.init != "default" and request.trainable and not request.adapter_path
        )
