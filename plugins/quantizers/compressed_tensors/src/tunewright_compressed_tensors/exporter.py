"""Export of checkpoints in the formats of compressed-tensors."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tunewright.types import ExportRequest, RunContext
from tunewright_hf.exports.quantized import QuantizedExporter

_ROUNDING = {"FP8_DYNAMIC": 0.15, "W8A8": 0.1, "W8A16": 0.05, "W4A16": 0.5, "NVFP4A16": 0.5}


class CompressedTensorsExport(QuantizedExporter):
    """A checkpoint in a format of compressed-tensors, as llm-compressor writes them for vLLM and
    SGLang. Weights are rounded to the nearest; activations, where the scheme rounds them, for each
    token while the model runs: no calibration data is needed. Where 4 bits lose too much, gptq
    loses less. What is compared with the run are the weights."""

    libraries = ("compressed_tensors",)

    class Options(QuantizedExporter.Options):
        scheme: Literal["FP8_DYNAMIC", "W8A8", "W8A16", "W4A16", "NVFP4A16"] = Field(
            "FP8_DYNAMIC",
            description="llm-compressor's name. FP8_DYNAMIC: weights and activations in float8. "
            "W8A8: in int8. W8A16, W4A16: weights in int8 or int4. NVFP4A16: weights in NVFP4.",
        )
        group_size: Literal[16, 32, 64, 128] = Field(
            128, description="With W4A16: weights of a row that share a scale."
        )

    def rounding(self) -> float:
        return _ROUNDING[self.options.scheme]

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        from tunewright_compressed_tensors import layout
        from tunewright_hf.models.packing import quantize_checkpoint

        layer, config = layout.scheme(self.options.scheme, self.options.group_size)
        quantize_checkpoint(plain, request.folder, layer, config)

    def loading(self) -> dict[str, Any]:
        from transformers import CompressedTensorsConfig

        return {"quantization_config": CompressedTensorsConfig(dequantize=True)}
