"""Models that run a checkpoint's own code (--trust-remote-code): what transformers 5 leaves undone.

It builds every model without storage, and puts uninitialised memory in place of the buffers that
no file holds. Its own classes compute them anew; code that was written for transformers 4 computed
them in `__init__`, and would go on with whatever the memory held: wrong logits, or NaN, without a
word.
"""

from typing import Any

import torch
from torch import nn

from tunewright import RunError
from tunewright.types import LoadRequest
from tunewright_hf.models.errors import one_line

_HINT = (
    "the checkpoint's own code does not run right with this version of transformers; use a version "
    "of the model that transformers knows itself, without --trust-remote-code"
)
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest


def is_remote(model: Any) -> bool:
    """Whether the model's class came with its checkpoint."""
    return type(model).__module__.partition(".")[0] == "transformers_modules"


def restore_buffers(model: Any, request: LoadRequest) -> None:
    """Set the buffers and tensors that `__init__` computes, and no file holds, to what it computes.

    The class is built a second time, with buffers on the CPU and parameters without storage. Raises
    RunError where the code cannot do that.
    """
    from accelerate import init_empty_weights

    from tunewright_hf.models.devices import seeded

    with (
        one_line("its own code cannot be built", request.model, _HINT),
        seeded(request.seed, torch.device("cpu")),
        init_empty_weights(include_buffers=False),
    ):
        fresh = type(model)._from_config(model.config, dtype=model.dtype)
    modules = dict(fresh.named_modules())
    for name, module in model.named_modules():
        if (same := modules.get(name)) is not None:
            _restore(module, same, name, request.model)


def _restore(module: nn.Module, fresh: nn.Module, name: str, place: str) -> None:
    for key in module._non_persistent_buffers_set:
        own, computed = module._buffers.get(key), fresh._buffers.get(key)
        if own is not None and computed is not None and not computed.is_meta:
            module._buffers[key] = computed.to(own.device)
    for key, value in vars(
        module
    ).items():  # tensors that are no buffers have stayed without storage
        if isinstance(value, torch.Tensor) and value.is_meta:
            computed = vars(fresh).get(key)
            if not isinstance(computed, torch.Tensor) or computed.is_meta:
                at = f"{name}.{key}".lstrip(".")
                raise RunError(f"{at} has no value after loading", place=place, hint=_HINT)
            setattr(module, key, computed)


def probe(model: Any, tokenizer: Any, place: str) -> None:
    """Run a few tokens: outputs have to be finite, the same twice, and the same beside padding.

    Raises RunError. Needs tokenizer.pad_token_id. Scores are compared as logits are.
    """
    ids = tokenizer("One two three, four.", add_special_tokens=False).input_ids[:16]
    ids = torch.tensor([ids], device=model.device)  # (1, T)
    padding = torch.full((1, 5), tokenizer.pad_token_id, device=model.device)
    padded = torch.cat((ids, padding), dim=1)  # on the right, as batches for training are
    mask = (torch.arange(padded.shape[1], device=model.device) < ids.shape[1]).long()[None]
    with one_line("its own code cannot run", place, _HINT), torch.no_grad():
        model.eval()
        first, again = (_output(model, ids, torch.ones_like(ids)) for _ in range(2))
        beside = _output(model, padded, mask)
    if first.dim() == 3:  # (1, T, V): those of the text alone
        beside = beside[:, : first.shape[1]]
    scale = float(first.abs().max())
    bound = _TOLERANCE.get(model.dtype, 1e-1) * max(scale, 1e-3)
    for other, problem in (
        (again, "gives other numbers for the same tokens a second time"),
        (beside, "gives other numbers for the same tokens where padding follows"),
    ):
        if not (torch.isfinite(first).all() and torch.isfinite(other).all()):
            raise RunError("gives numbers that are not finite", place=place, hint=_HINT)
        if first.shape != other.shape or float((first - other).abs().max()) > bound:
            raise RunError(problem, place=place, hint=_HINT)


def _output(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return found.float()
