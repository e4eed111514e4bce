"""AWQ checkpoints made from plain models."""

from collections.abc import Sequence
from pathlib import Path

from gptqmodel import GPTQModel
from gptqmodel.quantization.config import AWQConfig

from tunewright_hf.models.errors import one_line


def quantize(model: Path, rows: Sequence[list[int]], output: Path, group_size: int) -> None:
    """Quantize the plain checkpoint in a folder with AWQ, and write it to another.

    rows: calibration data, token ids as the model will read. Raises RunError where gptqmodel fails.
    """
    with one_line("cannot be quantized", str(model)):
        made = GPTQModel.load(str(model), AWQConfig(bits=4, group_size=group_size, sym=False))
        made.quantize(
            [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows],
            calibration_data_min_length=1,
        )
        made.save(str(output))
