"""BOFT: orthogonal transformations made of small blocks."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright import RecipeError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import DROPOUT, Check, one_of, whole


class Boft(PeftAdapter):
    """Orthogonal transformations made of sparse factors, as in a fast Fourier transform (Liu et al.
    2023, arXiv:2311.06243), through PEFT. Fewer parameters than OFT for a dense rotation, but
    slower."""

    peft_type = "BOFT"
    config_fields: ClassVar[Mapping[str, Check]] = {
        "boft_block_size": whole(0, 1_000_000),
        "boft_block_num": whole(0, 1_000_000),
        "boft_n_butterfly_factor": whole(1, 100),
        "boft_dropout": DROPOUT,
        "bias": one_of("none", "all", "boft_only"),
    }

    class Options(PeftOptions):
        block_size: int = Field(
            4, ge=2, le=65_536, description="Side of a block. It must divide the layers' width."
        )
        butterfly_factors: int = Field(
            1,
            ge=1,
            le=100,
            description="Number of sparse factors. 1: block-diagonal, as OFT. More need a GPU, on "
            "which PEFT compiles an extension (ninja, nvcc).",
        )
        dropout: float = Field(
            0.0, ge=0, lt=1, description="Probability that a block is not rotated in training."
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        options = self.options
        return peft.BOFTConfig(
            boft_block_size=options.block_size,
            boft_n_butterfly_factor=options.butterfly_factors,
            boft_dropout=options.dropout,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        import torch
        from peft.tuners.boft import layer

        if not torch.cuda.is_available():
            # PEFT 0.21 compiles a CUDA extension at the first layer. More than one factor needs it;
            # without it PEFT would use one, with a warning
            layer._FBD_CUDA = False
        loaded = super().adapt(request)
        factors = loaded.model.peft_config["default"].boft_n_butterfly_factor
        if factors > 1 and layer.get_fbd_cuda() in (None, False):
            raise RecipeError(
                f"is {factors}, and PEFT's CUDA extension for it cannot be used here",
                place="adapter.butterfly_factors",
                hint="set 1, or train on a GPU with ninja and nvcc",
            )
        return loaded

    def works_on_meta(self) -> bool:
        return True
