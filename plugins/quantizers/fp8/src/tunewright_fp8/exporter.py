"""Export of checkpoints with block-wise float8 weights."""

from pathlib import Path
from typing import Any

from tunewright.types import ExportRequest, RunContext
from tunewright_hf.exports.quantized import QuantizedExporter


class Fp8Export(QuantizedExporter):
    """A checkpoint with weights in float8 and a scale per block of 128 × 128, as DeepSeek-V3 and
    Qwen3's FP8 releases: no calibration data is needed. transformers on a GPU, vLLM and SGLang load
    it. What is compared with the run are the weights."""

    def rounding(self) -> float:
        return 0.15

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        from tunewright_fp8 import layout
        from tunewright_hf.models.packing import quantize_checkpoint

        quantize_checkpoint(plain, request.folder, layout.tensors, layout.CONFIG)

    def loading(self) -> dict[str, Any]:
        from transformers import FineGrainedFP8Config

        return {"quantization_config": FineGrainedFP8Config(dequantize=True)}
