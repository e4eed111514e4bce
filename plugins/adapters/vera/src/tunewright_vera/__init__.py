"""VeRA: trained vectors that scale random projections shared by all layers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import DROPOUT, FLAG, Check, number, one_of, whole


class Vera(PeftAdapter):
    """Trains two vectors per layer, around a pair of frozen random matrices that all layers share
    (Kopiczko et al. 2023, arXiv:2310.11454), through PEFT. Ten times fewer parameters than LoRA."""

    peft_type = "VERA"
    config_fields: ClassVar[Mapping[str, Check]] = {
        "r": whole(1, 65_536),
        "projection_prng_key": whole(0, 2**63),
        "save_projection": FLAG,
        "vera_dropout": DROPOUT,
        "d_initial": number(-1000, 1000),
        "bias": one_of("none", "all", "vera_only"),
    }

    class Options(PeftOptions):
        rank: int = Field(256, ge=1, le=65_536, description="Rank of the shared projections.")
        dropout: float = Field(
            0.0, ge=0, lt=1, description="Dropout probability of the adapter's inputs in training."
        )
        d_initial: float = Field(
            0.1, gt=0, le=1, description="Initial value of the vector between the projections."
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        options = self.options
        return peft.VeraConfig(
            r=options.rank,
            vera_dropout=options.dropout,
            d_initial=options.d_initial,
            projection_prng_key=request.seed,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )

    def works_on_meta(self) -> bool:
        return True
