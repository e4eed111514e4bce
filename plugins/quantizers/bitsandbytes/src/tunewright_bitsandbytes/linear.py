"""Quantization config for transformers."""

from typing import TYPE_CHECKING

import torch
from transformers import BitsAndBytesConfig

from tunewright_hf.models.devices import pick_device
from tunewright_hf.models.precision import resolve

if TYPE_CHECKING:
    from tunewright_bitsandbytes import BitsAndBytes

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def config(options: "BitsAndBytes.Options", precision: str, device: str) -> BitsAndBytesConfig:
    """Return transformers' config. Heads and tied embeddings stay as they are.

    precision: training.precision, in which 4-bit layers compute. device: where the model is loaded,
    such as auto or cuda:0; it decides what precision auto is.
    """
    if options.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.type,
        bnb_4bit_use_double_quant=options.double_quantization,
        bnb_4bit_compute_dtype=_DTYPES[resolve(precision, pick_device(device))],
    )
