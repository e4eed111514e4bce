"""SOAP whose eigenbases lie in memory as a checkpoint gives them back."""

from typing import Any

from pytorch_optimizer import SOAP
from torch import Tensor


class ContiguousSOAP(SOAP):  # type: ignore[misc]
    """QR and eigh return column-major matrices, which multiply with other rounding than the
    row-major ones of a checkpoint: a resumed run would differ."""

    def get_orthogonal_matrix(self, mat: Any) -> Any:
        return _contiguous(SOAP.get_orthogonal_matrix(mat))

    def get_orthogonal_matrix_qr(self, *arguments: Any, **more: Any) -> Any:
        return _contiguous(super().get_orthogonal_matrix_qr(*arguments, **more))


def _contiguous(matrices: list[Any]) -> list[Any]:
    return [each.contiguous() if isinstance(each, Tensor) else each for each in matrices]
