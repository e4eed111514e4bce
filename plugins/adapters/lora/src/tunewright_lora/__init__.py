"""Low-rank adapters: LoRA, DoRA, rsLoRA, LoRA+, PiSSA, OLoRA, EVA, CorDA, LoRA-GA, LoftQ."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from tunewright import RecipeError, hookimpl
from tunewright.check import Resolved
from tunewright.errors import Problem
from tunewright.types import AdapterRequest, Data, LoadedModel, RunContext
from tunewright_hf.models.peft import PeftOptions
from tunewright_hf.models.peft_lora import LoraAdapter
from tunewright_lora.combinations import problems

#: inits that prepare_adapter makes; the others are PEFT's, while it injects
_PREPARED = frozenset({"eva", "corda", "corda_kpm", "lora_ga", "loftq"})


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
            pattern=r"^(default|pissa|pissa_niter_[1-9]\d*|olora|eva|corda|corda_kpm|lora_ga|loftq)$",
            description="Initialization. default: the adapter has no effect at first. pissa: the "
            "largest singular values of each weight matrix (Meng et al. 2024, arXiv:2404.02948); "
            "pissa_niter_16: the same, approximated in 16 iterations. olora: QR decomposition. "
            "eva: singular vectors of the layers' inputs, with more rank where these vary most "
            "(Paischer et al. 2024, arXiv:2410.07170). corda: singular vectors of weights times "
            "the covariance of inputs, for the task's directions; corda_kpm: for those that the "
            "data uses least, which preserves what the model knows (Yang et al. 2024, "
            "arXiv:2406.05223). lora_ga: singular vectors of the first gradient (Wang et al. 2024, "
            "arXiv:2407.05000). loftq: makes up for the rounding of a quantizer that quantizes "
            "while loading (Li et al. 2023, arXiv:2310.08659, with one step). eva, corda and "
            "lora_ga read the data first, again when a run is resumed: corda holds a float32 "
            "square matrix of each layer's inputs, lora_ga a gradient of each weight, loftq the "
            "unquantized model in CPU memory. PiSSA, "
            "OLoRA, CorDA and LoRA-GA change the base weights when they initialise; on save they "
            "are converted to a plain LoRA of rank 2r for the original checkpoint.",
        )
        init_examples: int = Field(
            256,
            ge=1,
            description="With init eva, corda and lora_ga: number of the data's examples to read.",
        )
        eva_rho: float = Field(
            2.0,
            ge=1,
            le=1000,
            description="With init eva: a layer gets at most rank times this; 1 leaves all ranks "
            "as they are.",
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
            if self.experts and self.init != "default":
                raise ValueError(f"init {self.init} is for linear layers, not for experts")
            return self

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        from tunewright_hf.models.peft_config import largest_rank
        from tunewright_hf.models.peft_targets import fused_experts, new_token_rows

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
            trainable_token_indices=new_token_rows(request.loaded),
            use_dora=options.dora,
            use_rslora=options.rslora,
            bias=options.bias,
            # PiSSA and OLoRA initialisation is for training only
            init_lora_weights=options.init
            if request.trainable and options.init not in {"default", *_PREPARED}
            else True,
            **self.common(request),
        )

    def works_on_meta(self) -> bool:
        return bool(self.options.init == "default")  # others begin with parts of the weights

    def objections(self, recipe: Resolved) -> Iterator[Problem]:
        yield from super().objections(recipe)
        yield from problems(self, recipe)

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        loaded = super().adapt(request)
        if self.options.init in _PREPARED and request.trainable and not request.adapter_path:
            # noted for prepare_adapter
            loaded.model.peft_config["default"].init_lora_weights = self.options.init
        return self._with_rates(loaded)

    @hookimpl
    def prepare_adapter(self, run: RunContext, loaded: LoadedModel, data: Data) -> LoadedModel:
        """Initialise a new adapter from the data, or from the unquantized weights, as `init` says.
        Raises RecipeError."""
        begun = loaded.model.peft_config["default"].init_lora_weights
        if begun not in _PREPARED:
            return loaded
        from tunewright_lora.initialization import initialize

        return self._with_rates(initialize(self, run, loaded, data))

    def _with_rates(self, loaded: LoadedModel) -> LoadedModel:
        if ratio := self.options.loraplus_ratio:
            trained = loaded.trained or ()
            loaded.learning_rate_scales = {name: ratio for name in trained if "lora_B" in name}
        return loaded
