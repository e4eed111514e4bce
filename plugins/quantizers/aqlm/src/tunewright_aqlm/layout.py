"""The layout of AQLM's checkpoints."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from tunewright_hf.models.packing import quantize_folder

_VECTOR = 8  # weights
_ROUNDS = 8  # of k-means


def write(folder: Path, codebooks: int) -> None:
    """Quantize the plain checkpoint in `folder`, 2x8 or 1x16, by k-means of what earlier codebooks
    leave. AQLM itself searches codes jointly, with calibration data."""
    config = {
        "quant_method": "aqlm",
        "in_group_size": _VECTOR,
        "out_group_size": 1,
        "num_codebooks": codebooks,
        "nbits_per_codebook": 16 // codebooks,
        "linear_weights_not_to_quantize": None,
    }
    quantize_folder(folder, lambda weight: tensors(weight, codebooks), config)


def tensors(weight: Tensor, codebooks: int) -> dict[str, Tensor]:
    """codes (out, in / 8, codebooks), codebooks (codebooks, size, 1, 8) and scales (out, 1, 1, 1),
    of a weight (out, in)."""
    size = 2 ** (16 // codebooks)
    scales = weight.norm(dim=1, keepdim=True) / weight.shape[1] ** 0.5  # (out, 1)
    rest = (weight / scales).reshape(-1, _VECTOR)
    codes, books = [], []
    for _ in range(codebooks):
        book, nearest = _cluster(rest, size)
        rest = rest - book[nearest]
        codes.append(nearest)
        books.append(book)
    found = torch.stack(codes, -1)
    signed = torch.where(found >= size // 2, found - size, found)
    return {
        "codes": signed.to(torch.int16 if size > 256 else torch.int8).reshape(
            weight.shape[0], -1, codebooks
        ),
        "codebooks": torch.stack(books)[:, :, None, :],
        "scales": scales[:, :, None, None],
    }


def _cluster(vectors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A codebook (size, 8), and for each of the vectors (n, 8) the number of its entry."""
    if len(vectors) <= size:
        return pad(vectors, (0, 0, 0, size - len(vectors))), torch.arange(len(vectors))
    book = vectors[torch.linspace(0, len(vectors) - 1, size).long()].clone()
    for _ in range(_ROUNDS):
        nearest = torch.cdist(vectors, book).argmin(1)
        sums = torch.zeros_like(book).index_add_(0, nearest, vectors)
        counts = torch.bincount(nearest, minlength=size)[:, None]
        book = torch.where(counts > 0, sums / counts.clamp(min=1), book)
    return book, torch.cdist(vectors, book).argmin(1)
