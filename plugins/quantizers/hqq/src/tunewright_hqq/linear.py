"""Linear layers of hqq, in a loaded model."""

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from torch import Tensor, nn

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_hf.models.loading import set_quantized
from tunewright_hf.models.modules import linear_body
from tunewright_hf.models.quantized_linear import through

_PACKED = {8: 1, 6: 1, 5: 1, 4: 2, 3: 1, 2: 4, 1: 8}  # groups that share a byte


class HqqLinear(HQQLinear):
    """hqq's layer, computing in the weight's own dtype whatever its input has, as autocast asks."""

    def forward(self, x: Tensor) -> Tensor:
        return through(x.to(self.compute_dtype), self, self._product).to(x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantize(), self.bias)


def quantize(loaded: LoadedModel, bits: int, group_size: int) -> None:
    """Replace the model's linear layers, except heads, routers and media towers. Raises RecipeError
    where a layer's weights do not fill groups."""
    model = loaded.model
    for name in linear_body(loaded):
        plain = model.get_submodule(name)
        groups, rest = divmod(plain.weight.numel(), group_size)
        if rest or groups % _PACKED[bits]:
            raise RecipeError(
                f"{name} has {plain.weight.numel()} weights, expected a multiple of "
                f"{group_size * _PACKED[bits]} with {bits} bits",
                place="quantizer.group_size",
                hint="make it smaller",
            )
        model.set_submodule(name, _quantized(plain, bits, group_size))
    set_quantized(loaded)


def _quantized(plain: nn.Linear, bits: int, group_size: int) -> HqqLinear:
    config = BaseQuantizeConfig(nbits=bits, group_size=group_size, axis=1)
    weight = plain.weight
    with torch.no_grad():
        made = HqqLinear(
            plain, config, compute_dtype=weight.dtype, device=str(weight.device), del_orig=True
        )
    made.W_q.requires_grad_(False)
    return made
