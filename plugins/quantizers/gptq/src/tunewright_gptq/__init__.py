"""GPTQ checkpoints: weights in 2, 3, 4 or 8 bits, rounded so that outputs change least."""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions
from tunewright_hf.models.quantizers import CheckpointQuantizer


class Gptq(CheckpointQuantizer):
    """Checkpoints whose weights were quantized to 2, 3, 4 or 8 bits by GPTQ (Frantar et al. 2022,
    arXiv:2210.17323) are trained on through gptqmodel. A checkpoint is recognised without this
    section. `tunewright export RUN --to gptq` makes one from a trained model.
    """

    libraries = ("gptqmodel", "optimum.gptq")

    class Options(PluginOptions):
        bits: Literal[2, 3, 4, 8] | None = Field(
            None,
            description="Bits per weight, which the checkpoint has to agree with. Default: what "
            "the checkpoint says.",
        )
        group_size: int | None = Field(
            None,
            ge=16,
            description="Weights that share a scale, which the checkpoint has to agree with. "
            "Default: what the checkpoint says.",
        )

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        count, bits = math.prod(shape), self.options.bits or 4
        groups = count / (self.options.group_size or 128)
        # scales in float16, zero points in as many bits as weights, the group of each column, and
        # the kernel's shifts
        shifts = 144 if bits == 3 else 128 / bits
        return count * bits / 8 + groups * (2 + bits / 8) + 4 * shape[1] + shifts

    def expected(self) -> dict[str, Any]:
        said = {"bits": self.options.bits, "group_size": self.options.group_size}
        return {key: value for key, value in said.items() if value is not None}

    def loading(self) -> dict[str, Any]:
        return {"backend": "auto_trainable"}  # other kernels have no backward pass

    def write_tiny(self, folder: Path) -> None:
        from tunewright_gptq import layout

        layout.write(folder, self.options.bits or 4, self.options.group_size or 32)
