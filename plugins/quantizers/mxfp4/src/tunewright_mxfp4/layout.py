"""The layout of gpt-oss' checkpoints."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # with the sign bit: 16 codes
_BLOCK = 32


def write(folder: Path) -> None:
    """Quantize the experts of the plain checkpoint in `folder` to MXFP4."""
    path = folder / "config.json"
    config = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    tensors = load_file(folder / "model.safetensors")
    for name in [n for n in tensors if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        blocks, scales = quantized(tensors.pop(name).float().transpose(1, 2))
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(written | {"quantization_config": config}), "utf-8")


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks (experts, out, in / 32, 16) and scales (experts, out, in / 32), of weights (experts,
    out, in).

    A byte holds two codes, the first in the low bits. A scale is an exponent of 2, plus 127.
    """
    blocks = weight.unflatten(-1, (-1, _BLOCK))
    exponents = torch.floor(torch.log2(blocks.abs().amax(-1).clamp(min=1e-30))) - 2
    scaled = blocks / torch.exp2(exponents)[..., None]
    codes = (scaled.abs()[..., None] - _VALUES).abs().argmin(-1) + 8 * (scaled < 0)
    packed = codes[..., ::2] | (codes[..., 1::2] << 4)
    return packed.to(torch.uint8).contiguous(), (exponents + 127).to(torch.uint8).contiguous()
