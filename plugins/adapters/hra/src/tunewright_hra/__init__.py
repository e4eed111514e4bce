"""HRA: reflects weights by a few trained vectors."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import FLAG, RANK, Check, one_of


class Hra(PeftAdapter):
    """Multiplies weights by a chain of Householder reflections (Yuan et al. 2024,
    arXiv:2405.17484), through PEFT: orthogonal as OFT, of low rank as LoRA.
    """

    peft_type = "HRA"
    quantizers = frozenset({"quanto"})
    config_fields: ClassVar[Mapping[str, Check]] = {
        "r": RANK,
        "apply_GS": FLAG,
        "bias": one_of("none", "all", "hra_only"),
    }

    class Options(PeftOptions):
        rank: int = Field(
            8,
            ge=2,
            le=65_536,
            multiple_of=2,
            description="Number of reflections, even: pairs "
            "cancel at first, so that the adapter has no effect.",
        )
        orthogonal: bool = Field(
            False, description="Make the reflections orthogonal to each other (Gram-Schmidt)."
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.HRAConfig(
            r=self.options.rank,
            apply_GS=self.options.orthogonal,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )

    def works_on_meta(self) -> bool:
        return True
