"""Quantization config for transformers, and a safeguard for bitsandbytes' layers."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.nn.modules import Linear4bit
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


def keep_layout(model: Any) -> None:
    """Keep 4-bit layers from repacking their weights for inference on a CPU with AVX512-BF16.

    bitsandbytes repacks at the first forward pass in evaluation mode. From then on gradients,
    merging and saving read the new layout as the old one, without an error: the loss looks as
    before.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    # on a CPU it logs at every start that a hub kernel would be faster
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
