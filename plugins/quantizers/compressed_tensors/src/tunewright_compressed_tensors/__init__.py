"""Checkpoints of llm-compressor and vLLM, dequantized while they are loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions
from tunewright_hf.models.quantizers import DequantizedCheckpoint


class CompressedTensors(DequantizedCheckpoint):
    """Checkpoints in the formats of compressed-tensors (int4, int8, float8, NVFP4 and MXFP4, as
    llm-compressor writes them for vLLM) are dequantized while they are loaded: the library would do
    so at the first forward pass anyway. The model takes the memory of plain weights. A checkpoint
    is recognised without this section. Activations are not rounded, which a server that runs the
    checkpoint does where its scheme says so (W8A8, FP8, NVFP4).
    """

    libraries = ("compressed_tensors",)

    class Options(PluginOptions):
        format: (
            Literal[
                "pack-quantized",
                "int-quantized",
                "float-quantized",
                "nvfp4-pack-quantized",
                "mxfp4-pack-quantized",
            ]
            | None
        ) = Field(
            None,
            description="Format, which the checkpoint has to agree with: int4 is pack-quantized, "
            "int8 is int-quantized, float8 is float-quantized. Default: what the checkpoint says.",
        )

    def expected(self) -> dict[str, Any]:
        return {} if self.options.format is None else {"format": self.options.format}

    def unreadable(self, stored: dict[str, Any]) -> Iterator[str]:
        from tunewright_compressed_tensors import schemes

        yield from super().unreadable(stored)
        yield from schemes.unreadable(stored)

    def write_tiny(self, folder: Path) -> None:
        from tunewright_compressed_tensors import layout

        layout.write(folder, self.options.format or "pack-quantized")
