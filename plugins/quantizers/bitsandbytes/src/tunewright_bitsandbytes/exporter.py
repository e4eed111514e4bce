"""Export of checkpoints of bitsandbytes."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tunewright.types import ExportRequest, RunContext
from tunewright_hf.exports.quantized import QuantizedExporter


class BitsAndBytesExport(QuantizedExporter):
    """A checkpoint with weights in 4 or 8 bits by bitsandbytes, rounded block by block: no
    calibration data is needed. transformers and vLLM load it where bitsandbytes is installed."""

    libraries = ("bitsandbytes",)

    class Options(QuantizedExporter.Options):
        bits: Literal[4, 8] = Field(4, description="Bits per weight.")
        type: Literal["nf4", "fp4"] = Field(
            "nf4", description="4-bit data type: nf4 (normal quantiles) or fp4."
        )
        double_quantization: bool = Field(
            True,
            description="With 4 bits: also quantize the scales, which saves 0.4 bits per weight.",
        )

    def rounding(self) -> float:
        return 0.5 if self.options.bits == 4 else 0.1

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        from tunewright_bitsandbytes import linear
        from tunewright_hf.models.export import export_device, quantize_while_loading

        made = linear.config(self.options, "auto", str(export_device(run)))
        quantize_while_loading(run, request, plain, made)
