"""FourierFT: updates made of a few trained frequencies."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import FLAG, SCALE, Check, by_module, one_of, whole


class FourierFT(PeftAdapter):
    """Trains a few coefficients of the Fourier transform of each update (Gao et al. 2024,
    arXiv:2405.03003), through PEFT. Hundreds of times fewer parameters than LoRA; take a learning
    rate of about 1e-2.
    """

    peft_type = "FOURIERFT"
    quantizers = frozenset({"bitsandbytes", "quanto", "torchao"})
    config_fields: ClassVar[Mapping[str, Check]] = {
        "n_frequency": whole(1, 10_000_000),
        "scaling": SCALE,
        "init_weights": FLAG,
        "random_loc_seed": whole(0, 2**63),
        "bias": one_of("none", "all", "fourier_only"),
        "n_frequency_pattern": by_module(whole(1, 10_000_000)),
    }

    class Options(PeftOptions):
        frequencies: int = Field(
            1000, ge=1, le=10_000_000, description="Trained coefficients per layer."
        )
        scaling: float = Field(150.0, gt=0, le=100_000, description="Factor of the update.")

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        return peft.FourierFTConfig(
            n_frequency=self.options.frequencies,
            scaling=self.options.scaling,
            random_loc_seed=request.seed,
            # coefficients are zero at first, so that the adapter has no effect
            init_weights=True,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )

    def works_on_meta(self) -> bool:
        return True
