"""Linear layers of EETQ, in a loaded model."""

import EETQ
import torch
from torch import Tensor, nn

from tunewright.types import LoadedModel
from tunewright_hf.models.loading import set_quantized
from tunewright_hf.models.modules import linear_body
from tunewright_hf.models.quantized_linear import through


class EetqLinear(nn.Linear):
    """Linear layer with a weight in int8, in the order of EETQ's kernels for this GPU.

    There is no plain `weight`: an adapter that reads it fails, where it would compute with int8.
    """

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        # (in, out); on the CPU, where EETQ quantizes
        weight = plain.weight.detach().half().T.contiguous().cpu()
        codes, scales = EETQ.quant_weights(weight, torch.int8, False)
        device = plain.weight.device
        self.weight = None  # type: ignore[assignment]
        self.qweight = nn.Parameter(codes.to(device), requires_grad=False)
        self.register_buffer("weight_scales", scales.half().to(device))
        self.bias = plain.bias

    def forward(self, x: Tensor) -> Tensor:
        return through(x, self, self._product)

    def _product(self, x: Tensor) -> Tensor:
        # EETQ reads the memory as a float16 matrix, whatever it is
        rows = x.reshape(-1, self.in_features).half().contiguous()
        found = EETQ.w8_a16_gemm(rows, self.qweight, self.weight_scales)
        found = found.reshape(*x.shape[:-1], self.out_features).to(x.dtype)
        return found if self.bias is None else found + self.bias.to(x.dtype)


def quantize(loaded: LoadedModel) -> None:
    """Replace the model's linear layers, except heads, routers and media towers."""
    for name in linear_body(loaded):
        loaded.model.set_submodule(name, EetqLinear(loaded.model.get_submodule(name)))
    set_quantized(loaded)
