"""What transformers is told, and what bitsandbytes' layers must not do."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import BitsAndBytesConfig

from tunewright_hf.models.loading import pick_device
from tunewright_hf.models.precision import resolve

if TYPE_CHECKING:
    from tunewright_bitsandbytes import BitsAndBytes

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def config(options: "BitsAndBytes.Options", precision: str) -> BitsAndBytesConfig:
    """precision: the recipe's; what 4-bit layers compute in. Heads and tied embeddings are left as
    they are."""
    if options.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.type,
        bnb_4bit_use_double_quant=options.double_quantization,
        bnb_4bit_compute_dtype=_DTYPES[resolve(precision, pick_device("auto"))],
    )


def keep_layout(model: Any) -> None:
    """Forbid 4-bit layers to repack their weights for inference on a CPU with AVX512-BF16.

    bitsandbytes does so at the first forward pass in evaluation mode, and from then on gradients,
    merging and saving read the new layout as the old one, and nobody says a word: the loss looks as
    before.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    # on a CPU it says at every start that a hub kernel would be faster
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
