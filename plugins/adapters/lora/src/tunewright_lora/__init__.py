"""Low-rank adapters: LoRA, DoRA, rsLoRA, PiSSA, OLoRA, LoRA+."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright.types import AdapterRequest, LoadedModel

if TYPE_CHECKING:
    from tunewright.run import Run


class Lora(Plugin):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), through PEFT."""

    class Options(PluginOptions):
        rank: int = Field(8, ge=1)
        """rank of the update of each matrix"""
        alpha: int | None = Field(None, ge=1)
        """the update is scaled by alpha / rank; nothing: twice the rank"""
        dropout: float = Field(0.0, ge=0, lt=1)
        """share of the adapters' inputs that is zeroed while training"""
        targets: Literal["all-linear"] | list[str] = "all-linear"
        """names of the modules that are adapted, such as q_proj; all-linear: every linear layer but
        heads, routers and experts of a mixture, towers for media, and MLPs beside experts that PEFT
        takes for experts"""
        exclude: list[str] = Field(default_factory=list)
        """names of modules that are left alone, with all that is below them"""
        experts: bool = False
        """adapt the experts of a mixture too, which are one parameter a layer; needs dropout 0, no
        dora"""
        dora: bool = False
        """train the magnitude of each row apart (DoRA, Liu et al. 2024, arXiv:2402.09353)"""
        rslora: bool = False
        """scale by alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732)"""
        init: str = Field("default", pattern=r"^(default|pissa|pissa_niter_[1-9]\d*|olora)$")
        """how adapters begin: default changes nothing; pissa with the largest singular values of
        each matrix (Meng et al. 2024, arXiv:2404.02948), pissa_niter_16 faster; olora with a QR
        decomposition. What is saved is always a plain adapter of the original model, of twice the
        rank for pissa and olora"""
        loraplus_ratio: float | None = Field(None, gt=0)
        """learning rate of B over that of A (LoRA+, Hayou et al. 2024, arXiv:2402.12354); nothing:
        1"""
        bias: Literal["none", "all", "lora_only"] = "none"
        """which biases are trained"""
        modules_to_save: list[str] = Field(default_factory=list)
        """names of further modules that are trained whole and saved with the adapter, such as
        embed_tokens"""

        @model_validator(mode="after")
        def _fits(self) -> "Lora.Options":
            if self.experts and (self.dora or self.dropout):
                raise ValueError("experts cannot be adapted with dora or dropout")
            if self.dora and self.init != "default":
                raise ValueError(f"init {self.init} cannot be made a plain adapter with dora")
            return self

    @hookimpl
    def apply_adapter(self, run: "Run", request: AdapterRequest) -> LoadedModel:
        """Put adapters into the model in place, new ones or those of `request.adapter_path`."""
        from tunewright_lora import adapter

        loaded = request.loaded
        if request.adapter_path:
            loaded.model = adapter.trained(loaded, request)
        else:
            loaded.model = adapter.fresh(loaded, request, self.options)
        ratio = self.options.loraplus_ratio
        for name, parameter in loaded.model.named_parameters():
            if ratio and parameter.requires_grad and "lora_B" in name:
                loaded.learning_rate_scales[name] = ratio
        loaded.saves = "adapter"
        return loaded

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """The model with its adapters added to its weights, for export. Raises RunError where that
        fails."""
        from tunewright_lora import adapter

        return adapter.merge(loaded)
