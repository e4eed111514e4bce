"""AQLM checkpoints: weights in about 2 bits, as sums of vectors from learned codebooks."""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from tunewright import PluginOptions
from tunewright.types import LoadedModel
from tunewright_hf.models.quantizers import CheckpointQuantizer


class Aqlm(CheckpointQuantizer):
    """Checkpoints whose weights were quantized to about 2 bits by AQLM (Egiazarian et al. 2024,
    arXiv:2401.06118) are trained on through aqlm. A checkpoint is recognised without this section.
    2 bits of AQLM lose less than 2 bits of other methods here; making such a checkpoint takes GPU
    hours, with aqlm's own scripts.
    """

    libraries = ("aqlm",)
    deviations: ClassVar[dict[str, str]] = {
        "test_says_what_is_quantized": "The codebooks of a tiny layer are larger than its weights."
    }

    class Options(PluginOptions):
        codebooks: Literal[1, 2] | None = Field(
            None,
            description="Codebooks whose vectors are summed up, which the checkpoint has to agree "
            "with: 2x8 has 2 of 256 vectors, 1x16 has 1 of 65,536. Default: what the checkpoint "
            "says.",
        )

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        books, bits = (1, 16) if self.options.codebooks == 1 else (2, 8)
        codes = math.prod(shape) / 8 * books * bits / 8  # of vectors of 8 weights
        size = 4 if dtype == "float32" else 2
        return codes + size * (books * 2**bits * 8 + shape[0])  # codebooks, and a scale per row

    def expected(self) -> dict[str, Any]:
        books = self.options.codebooks
        return {} if books is None else {"num_codebooks": books}

    def write_tiny(self, folder: Path) -> None:
        from tunewright_aqlm import layout

        layout.write(folder, self.options.codebooks or 2)

    def adapt_layers(self, loaded: LoadedModel) -> None:
        from tunewright_aqlm import linear

        linear.give_gradients(loaded)
