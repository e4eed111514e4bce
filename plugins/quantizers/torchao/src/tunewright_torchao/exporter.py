"""Export of torchao's checkpoints."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tunewright.types import ExportRequest, RunContext
from tunewright_hf.exports.quantized import QuantizedExporter

_ROUNDING = {"int8": 0.05, "int8_dynamic": 0.1, "float8": 0.15, "int4": 0.5}


class TorchAoExport(QuantizedExporter):
    """A checkpoint with weights in int8, int4 or float8 by torchao, rounded to the nearest: no
    calibration data is needed. A model that was trained with its qat loses least. transformers and
    vLLM load it where torchao is installed."""

    libraries = ("torchao",)

    class Options(QuantizedExporter.Options):
        type: Literal["int8", "int8_dynamic", "int4", "float8"] = Field(
            "int8",
            description="int8: a scale per row. int8_dynamic: activations are rounded to int8 too, "
            "for each token. int4: in groups, on an NVIDIA GPU. float8: e4m3, a scale per row.",
        )
        group_size: Literal[32, 64, 128, 256] = Field(
            128, description="With int4: weights that share a scale and a zero point."
        )

    @property
    def gpu(self) -> bool:  # type: ignore[override]
        return bool(self.options.type == "int4")

    def rounding(self) -> float:
        return _ROUNDING[self.options.type]

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        from tunewright_hf.models.export import quantize_while_loading
        from tunewright_torchao import linear

        quantize_while_loading(run, request, plain, linear.config(self.options))
