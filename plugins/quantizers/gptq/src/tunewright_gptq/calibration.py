"""GPTQ checkpoints made from plain models."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTQConfig

from tunewright_hf.models.errors import one_line

__all__ = ["quantize"]


def quantize(
    model: Path,
    rows: Sequence[list[int]],
    output: Path,
    *,
    bits: int,
    group_size: int,
    desc_act: bool,
    device: str,
) -> None:
    """Quantize the plain checkpoint in a folder with GPTQ, and write weights and config to another.

    rows: calibration data, token ids as the model will read, some hundred rows. group_size: weights
    that share a scale. desc_act: quantize columns in the order of their activations, which is more
    exact and slower to run. Raises RunError where gptqmodel fails.
    """
    with one_line("cannot be quantized", str(model)):
        made = AutoModelForCausalLM.from_pretrained(
            model,
            quantization_config=GPTQConfig(
                bits=bits,
                group_size=group_size,
                desc_act=desc_act,
                dataset=[_row(ids) for ids in rows],
                tokenizer=AutoTokenizer.from_pretrained(model),
                model_seqlen=max(map(len, rows)),
            ),
            use_safetensors=True,
            dtype="auto",
            device_map={"": device},
        )
        made.config.quantization_config.dataset = None  # else it is written into config.json
        made.save_pretrained(output)


def _row(ids: list[int]) -> dict[str, torch.Tensor]:
    found = torch.tensor([ids])
    return {"input_ids": found, "attention_mask": torch.ones_like(found)}
