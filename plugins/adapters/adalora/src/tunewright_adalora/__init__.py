"""AdaLoRA: a LoRA that gives ranks to the layers that need them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from tunewright import Problem
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import (
    DROPOUT,
    FLAG,
    RANK,
    SCALE,
    TOKENS_BY_MODULE,
    Check,
    number,
    one_of,
    whole,
)

if TYPE_CHECKING:
    from tunewright.check import Resolved

_STEPS = whole(0, 2**31)


def _ranks(value: Any, _: int) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 50_000
        and all(
            isinstance(kept, list) and len(kept) <= 65_536 and all(type(k) is bool for k in kept)
            for kept in value.values()
        )
    )


class AdaLora(PeftAdapter):
    """LoRA as a singular value decomposition whose smallest values are pruned while it trains
    (Zhang et al. 2023, arXiv:2303.10512), through PEFT. `init_rank` falls to a mean of
    `target_rank`, more for the layers that matter.
    """

    peft_type = "ADALORA"
    quantizers = frozenset({"bitsandbytes", "gptq"})
    trains_new_tokens = True
    can_be_sharded = False
    config_fields: ClassVar[Mapping[str, Check]] = {
        "target_r": RANK,
        "init_r": RANK,
        "r": RANK,
        "tinit": _STEPS,
        "tfinal": _STEPS,
        "deltaT": whole(1, 2**31),
        "beta1": number(0, 1),
        "beta2": number(0, 1),
        "orth_reg_weight": SCALE,
        "total_step": whole(1, 2**31),
        "lora_alpha": SCALE,
        "lora_dropout": DROPOUT,
        "use_rslora": FLAG,
        "trainable_token_indices": TOKENS_BY_MODULE,
        "bias": one_of("none", "all", "lora_only"),
        "rank_pattern": Check("an object: parameter name → list of true or false", _ranks),
    }

    class Options(PeftOptions):
        init_rank: int = Field(12, ge=1, le=65_536, description="Rank of each layer at first.")
        target_rank: int = Field(8, ge=1, le=65_536, description="Mean rank of layers at the end.")
        alpha: int = Field(
            32, ge=1, le=100_000, description="Scaling: the update is multiplied by alpha / rank."
        )
        dropout: float = Field(
            0.0, ge=0, lt=1, description="Dropout probability of the adapter's inputs in training."
        )
        warmup: float = Field(
            0.1, ge=0, lt=1, description="Share of the steps before the first rank is pruned."
        )
        final: float = Field(
            0.3, ge=0, lt=1, description="Share of the steps after the last rank was pruned."
        )
        interval: int = Field(10, ge=1, description="Optimizer steps between two prunings.")
        beta1: float = Field(0.85, gt=0, lt=1, description="Decay rate of the importance.")
        beta2: float = Field(0.85, gt=0, lt=1, description="Decay rate of its uncertainty.")
        orthogonality: float = Field(
            0.5, ge=0, description="Weight of the penalty that keeps singular vectors orthogonal."
        )

        @model_validator(mode="after")
        def _fits(self) -> "AdaLora.Options":
            if self.target_rank >= self.init_rank:
                raise ValueError("target_rank must be below init_rank, from which ranks fall")
            if self.warmup + self.final >= 1:
                raise ValueError("warmup and final leave no steps in which ranks are pruned")
            return self

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        optimizer = recipe.choices.get("optimizer")
        made = optimizer and optimizer.make()
        if made and (made.steps_in_backward or made.switches_parameters):
            yield Problem(
                self.at,
                f"{self.name} ranks layers by the gradients of all of them, which "
                f"{made.name} does not keep together",
                "set another optimizer such as adamw, or adapter: lora",
            )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        from tunewright_hf.models.peft_targets import new_token_rows

        options = self.options
        return peft.AdaLoraConfig(
            init_r=options.init_rank,
            target_r=options.target_rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            deltaT=options.interval,
            beta1=options.beta1,
            beta2=options.beta2,
            orth_reg_weight=options.orthogonality,
            total_step=2**31,  # until training begins and knows better
            target_modules=self.targets(request.loaded),
            trainable_token_indices=new_token_rows(request.loaded),
            **self.common(request),
        )

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        from tunewright_adalora.allocation import RankAllocation

        loaded = super().adapt(request)
        # what was trained before has its ranks
        if request.trainable and not request.adapter_path:
            loaded.model.training_callbacks = [RankAllocation(loaded.model, self.options)]
        return loaded
