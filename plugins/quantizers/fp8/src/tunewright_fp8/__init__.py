"""Checkpoints with block-wise float8 weights, dequantized while they are loaded."""

from pathlib import Path

from tunewright_hf.models.quantizers import DequantizedCheckpoint


class Fp8(DequantizedCheckpoint):
    """Checkpoints with weights in float8 and a scale per block of 128 × 128, as DeepSeek-V3 and
    Qwen3's FP8 releases (DeepSeek-AI 2024, arXiv:2412.19437), are dequantized to bfloat16 while
    they are loaded: the float8 kernels have no backward pass. The model takes twice the memory of
    the checkpoint. A checkpoint is recognised without this section.
    """

    def write_tiny(self, folder: Path) -> None:
        from tunewright_fp8 import layout

        layout.write(folder)
