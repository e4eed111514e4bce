"""AWQ checkpoints: weights in 4 bits, scaled by how large their activations are."""

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from tunewright import PluginOptions
from tunewright_hf.models.quantizers import CheckpointQuantizer


class Awq(CheckpointQuantizer):
    """Checkpoints whose weights were quantized to 4 bits by AWQ (Lin et al. 2023, arXiv:2306.00978)
    are trained on through gptqmodel. It computes in float16 or bfloat16. A checkpoint is recognised
    without this section. Where you can choose, a quantizer that needs no calibrated checkpoint,
    such as bitsandbytes, trains as well; an AWQ checkpoint has the advantage that the trained
    adapter fits the very weights that a server runs.
    """

    libraries = ("gptqmodel",)

    class Options(PluginOptions):
        group_size: int | None = Field(
            None,
            ge=16,
            description="Weights that share a scale, which the checkpoint has to agree with. "
            "Default: what the checkpoint says.",
        )

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        count = math.prod(shape)
        groups = count / (self.options.group_size or 128)
        return count / 2 + 2 * groups + groups / 2  # scales in float16, zero points in 4 bits

    def expected(self) -> dict[str, Any]:
        size = self.options.group_size
        return {} if size is None else {"group_size": size}

    def loading(self) -> dict[str, Any]:
        return {"backend": "auto_trainable"}  # other kernels have no backward pass

    def write_tiny(self, folder: Path) -> None:
        from tunewright_awq import layout

        layout.write(folder, self.options.group_size or 32)
