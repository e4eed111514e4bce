"""MiSS: updates that repeat one small matrix."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import DROPOUT, RANK, Check, one_of, whole


class Miss(PeftAdapter):
    """Adds one small trained matrix to the shards of a weight matrix (MiSS, formerly Bone; Kang and
    Yin 2024, arXiv:2409.15371), through PEFT. Half of LoRA's parameters of the same rank.
    """

    peft_type = "MISS"
    config_fields: ClassVar[Mapping[str, Check]] = {
        "r": RANK,
        "miss_dropout": DROPOUT,
        "mini_r": whole(1, 100_000),
        "bias": one_of("none", "all", "MiSS_only"),
    }

    class Options(PeftOptions):
        rank: int = Field(64, ge=1, le=65_536, description="Rank of the update.")
        dropout: float = Field(
            0.0, ge=0, lt=1, description="Dropout probability of the adapter's inputs in training."
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.MissConfig(
            r=self.options.rank,
            miss_dropout=self.options.dropout,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )

    def works_on_meta(self) -> bool:
        return True
