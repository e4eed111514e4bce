"""Export of AWQ checkpoints."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tunewright.types import ExportRequest, RunContext
from tunewright_hf.exports.quantized import CalibratedExporter


class AwqExport(CalibratedExporter):
    """A checkpoint with weights in 4 bits by AWQ (Lin et al. 2023, arXiv:2306.00978), made with
    calibration data on an NVIDIA GPU. transformers, vLLM and SGLang load it."""

    libraries = ("gptqmodel",)
    gpu = True

    class Options(CalibratedExporter.Options):
        group_size: Literal[32, 64, 128] = Field(
            128, description="Weights of a row that share a scale."
        )

    def rounding(self) -> float:
        return 0.5

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        from tunewright_awq.calibration import quantize

        quantize(plain, self.rows, request.folder, self.options.group_size)
