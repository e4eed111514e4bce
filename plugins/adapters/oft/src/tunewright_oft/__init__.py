"""OFT: rotates the weights of layers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import DROPOUT, FLAG, Check, number, one_of, whole


class Oft(PeftAdapter):
    """Orthogonal transformations of the inputs of linear layers (OFTv2, Qiu et al. 2025,
    arXiv:2506.19847), through PEFT; also on quantized weights (QOFT). Preserves the angles between
    neurons, and so the model's knowledge. `block_size²/2` parameters per block of inputs."""

    peft_type = "OFT"
    config_fields: ClassVar[Mapping[str, Check]] = {
        "r": whole(0, 1_000_000),
        "oft_block_size": whole(0, 1_000_000),
        "module_dropout": DROPOUT,
        "bias": one_of("none", "all", "oft_only"),
        "coft": FLAG,
        "eps": number(0, 1),
        "block_share": FLAG,
        "use_cayley_neumann": FLAG,
        "num_cayley_neumann_terms": whole(1, 1000),
    }

    class Options(PeftOptions):
        block_size: int = Field(
            32,
            ge=2,
            le=65_536,
            description="Inputs that are rotated together. It must divide the "
            "width of the layers: PEFT takes the nearest size that does.",
        )
        dropout: float = Field(
            0.0, ge=0, lt=1, description="Probability that a block is not rotated in training."
        )
        coft: bool = Field(
            False, description="Constrain rotations to a distance from the identity (COFT)."
        )
        eps: float = Field(6e-5, gt=0, le=1, description="With coft: the distance.")
        block_share: bool = Field(
            False, description="Share one rotation among the blocks of a layer."
        )
        exact: bool = Field(
            False,
            description="Invert exactly in the Cayley transform, not by 5 terms of the Neumann "
            "series: slower, and exactly orthogonal.",
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        options = self.options
        return peft.OFTConfig(
            oft_block_size=options.block_size,
            module_dropout=options.dropout,
            coft=options.coft,
            eps=options.eps,
            block_share=options.block_share,
            use_cayley_neumann=not options.exact,
            target_modules=self.targets(request.loaded),
            **self.common(request),
        )

    def works_on_meta(self) -> bool:
        return True
