"""Weights in int8 on NVIDIA GPUs, through EETQ's kernels."""

import math

from tunewright import hookimpl
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models.quantizers import AfterLoading, LibraryQuantizer


class Eetq(LibraryQuantizer):
    """Linear layers, except heads, in int8 with a scale per output, without calibration data,
    through EETQ (NetEase Fuxi, github.com/NetEase-FuXi/EETQ). Its kernels, from NVIDIA's
    FasterTransformer, are made for small batches, and need an NVIDIA GPU; where those do not
    matter, take bitsandbytes or torchao. The model is loaded plain and quantized then: that is the
    peak of memory. Quantized weights cannot be trained: train an adapter.

    Layers compute in float16 whatever the model's dtype is: outputs above 65,504 overflow. Build
    EETQ from its repository: its release 1.0.0 on PyPI is for Python 3.10, and PEFT cannot be
    imported beside it. transformers downloads the kernels as compiled code from the hub when a
    model is loaded, which is not done here.
    """

    libraries = ("EETQ",)
    remedy = "build it from github.com/NetEase-FuXi/EETQ, with its submodules: pip install ."
    reads_checkpoints = False  # they fit the GPUs that they were written for

    def needs_gpu(self) -> str:
        return self.name

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        return math.prod(shape) + 2 * shape[0]  # scales in float16

    @hookimpl
    def prepare_load(self, request: LoadRequest) -> bool:
        request.quantization = AfterLoading(self.method)
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        from tunewright_eetq import linear

        linear.quantize(loaded)
        return loaded
