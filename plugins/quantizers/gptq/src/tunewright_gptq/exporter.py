"""Export of GPTQ checkpoints."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tunewright.types import ExportRequest, RunContext
from tunewright_hf.exports.quantized import CalibratedExporter

#: of logits; a model of billions of weights loses far less than a tiny one
_ROUNDING = {2: 1.0, 3: 0.75, 4: 0.5, 8: 0.1}


class GptqExport(CalibratedExporter):
    """A checkpoint with weights in 2, 3, 4 or 8 bits by GPTQ (Frantar et al. 2022,
    arXiv:2210.17323), made with calibration data. It takes minutes per billion weights on a GPU.
    transformers, vLLM and SGLang load it."""

    libraries = ("gptqmodel", "optimum.gptq")

    class Options(CalibratedExporter.Options):
        bits: Literal[2, 3, 4, 8] = Field(4, description="Bits per weight.")
        group_size: Literal[16, 32, 64, 128] = Field(
            128, description="Weights of a row that share a scale."
        )
        desc_act: bool = Field(
            False,
            description="Quantize columns in the order of their activations: more exact, and "
            "slower to run.",
        )

    def rounding(self) -> float:
        return _ROUNDING[self.options.bits]

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        from tunewright_gptq.calibration import quantize
        from tunewright_hf.models.export import export_device

        options = self.options
        quantize(
            plain,
            self.rows,
            request.folder,
            bits=options.bits,
            group_size=options.group_size,
            desc_act=options.desc_act,
            device=str(export_device(run)),
        )
