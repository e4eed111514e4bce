"""aqlm's layers, with a gradient on every device."""

from aqlm import QuantizedLinear
from aqlm.utils import _dequantize_weight, unpack_int_data
from torch import Tensor
from torch.nn.functional import linear

from tunewright.types import LoadedModel
from tunewright_hf.models.quantized_linear import through


class AqlmLinear(QuantizedLinear):
    """aqlm's layer. On the CPU it multiplies by the dequantized weight: aqlm's own kernel there
    needs numba and transposes the codes, which its backward pass then reads wrongly."""

    def forward(self, input: Tensor) -> Tensor:
        kernel = super().forward if input.is_cuda else self._product
        return through(input, self, kernel)

    def _product(self, x: Tensor) -> Tensor:
        codes = unpack_int_data(self.codes, self.nbits_per_codebook)
        return linear(x, _dequantize_weight(codes, self.codebooks, self.scales).to(x), self.bias)


def give_gradients(loaded: LoadedModel) -> None:
    """Replace the class of every quantized layer, in place."""
    for module in loaded.model.modules() if loaded.model is not None else ():
        if type(module) is QuantizedLinear:
            module.__class__ = AqlmLinear
