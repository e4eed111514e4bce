"""Checkpoints with MXFP4 experts, dequantized while they are loaded."""

from pathlib import Path

from tunewright_hf.models.quantizers import DequantizedCheckpoint


class Mxfp4(DequantizedCheckpoint):
    """Checkpoints whose experts are in MXFP4, 4-bit floats with a scale per 32 (Open Compute
    Project 2023, OCP Microscaling Formats 1.0), as gpt-oss (OpenAI 2025, arXiv:2508.10925), are
    dequantized to bfloat16 while they are loaded: the MXFP4 kernels have no backward pass. The
    experts take four times the memory that they have in the checkpoint. A checkpoint is recognised
    without this section.
    """

    def write_tiny(self, folder: Path) -> None:
        from tunewright_mxfp4 import layout

        layout.write(folder)
