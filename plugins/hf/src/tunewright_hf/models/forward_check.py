"""A few tokens through a model before it is used: what loads without an error may still be wrong.

Outputs have to be finite and independent of padding, and linear layers that an adapter is put on
have to get a gradient. Random numbers go on afterwards as if nothing had happened.
"""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from tunewright import RunError
from tunewright.types import LoadedModel
from tunewright_hf.media.collation import media_rows
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.remote_code import HINT, is_foreign

_TEXT = "One two three, four."
_TOKENS, _PADDING = 8, 3
_EXACT, _ROUNDED = 1e-3, 1e-1  # largest difference, as a share of the largest output
_OF_CHECKPOINT = "the checkpoint is damaged, or its config.json is not its own"


def check_forward(
    loaded: LoadedModel, place: str, notify: Callable[[str, str], None] = lambda *_: None
) -> None:
    """Run a few tokens alone, and beside padding on the right as batches for training have it.

    Needs tokenizer.pad_token_id. Raises RunError where the model cannot run, where outputs (logits
    or scores) are not finite, or where the two runs differ. Left out, and notify is told, where the
    parameters have no storage.
    """
    model = loaded.model
    if _is_meta(model):
        notify("the model is not tried on a few tokens: its weights are not loaded yet", "info")
        return
    ids = _ids(loaded)
    padding = torch.full((1, _PADDING), loaded.tokenizer.pad_token_id, device=ids.device)
    padded = torch.cat((ids, padding), dim=1)
    mask = (torch.arange(padded.shape[1], device=ids.device) < ids.shape[1]).long()[None]
    hint = HINT if is_foreign(model) else _OF_CHECKPOINT
    with (
        one_line("a few tokens cannot be run through it", place, hint),
        _no_trace(model, training=False),
        torch.no_grad(),
    ):
        alone = again = _output(loaded, ids, torch.ones_like(ids))
        beside = _output(loaded, padded, mask)
        if not _equal(alone, beside, loaded):  # what differs is found out only then
            again = _output(loaded, ids, torch.ones_like(ids))
    problem = ""
    if not (torch.isfinite(alone).all() and torch.isfinite(beside).all()):
        problem = "gives numbers that are not finite"
    elif not _equal(alone, again, loaded):
        problem = "gives other numbers for the same tokens a second time"
    elif not _equal(alone, beside, loaded):
        problem = "gives other numbers for the same tokens where padding follows"
    if problem:
        raise RunError(problem, place=place, hint=hint)


def without_gradient(loaded: LoadedModel, names: Collection[str]) -> set[str]:
    """Modules, of those with these names, whose output the model's own output does not depend on:
    heads for tokens further on, or what runs without a gradient.

    Modules that differ in numbers alone (experts, layers) count as one: a few tokens do not reach
    all experts. Empty where the parameters have no storage yet.
    """
    model = loaded.model
    if _is_meta(model):
        return set()
    modules = {name: module for name, module in model.named_modules() if name in names}
    factors = {name: torch.ones((), device=model.device, requires_grad=True) for name in modules}
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ids = _ids(loaded)
    with ExitStack() as stack:
        stack.enter_context(_no_trace(model, training=True))
        for parameter in frozen:
            stack.callback(parameter.requires_grad_, True)
            parameter.requires_grad_(False)
        for name, module in modules.items():
            hook = module.register_forward_hook(_times(factors[name]))
            stack.callback(hook.remove)
        with torch.enable_grad():
            output = _output(loaded, ids, torch.ones_like(ids)).sum()
            for inputs in _with_media(loaded):
                output = output + model(**inputs, use_cache=False).logits.float().sum()
            if not output.requires_grad:
                return set(names)
            found = torch.autograd.grad(output, list(factors.values()), allow_unused=True)
    reached = {
        _pattern(name) for name, each in zip(factors, found, strict=True) if each is not None
    }
    return {name for name in names if _pattern(name) not in reached}


def _times(factor: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output * factor.to(output.dtype) if isinstance(output, Tensor) else output

    return hook


def _pattern(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _is_meta(model: Any) -> bool:
    """Whether parameters have no values: on the meta device, or fake."""
    return any(each.is_meta or isinstance(each, FakeTensor) for each in model.parameters())


@contextmanager
def _no_trace(model: Any, training: bool) -> Iterator[None]:
    """Random numbers and modules are afterwards as they were: modules keep tables of the longest
    text, the dtype of their first inputs, and whether they train."""
    modules = [(each, dict(vars(each)), dict(each._buffers)) for each in model.modules()]
    with seeded(0, model.device):
        model.train(training)
        try:
            yield
        finally:
            for module, attributes, buffers in modules:
                vars(module).clear()
                vars(module).update(attributes)
                module._buffers.clear()
                module._buffers.update(buffers)


def _ids(loaded: LoadedModel) -> Tensor:
    """A few tokens (1, T)."""
    ids = loaded.tokenizer(_TEXT, add_special_tokens=False).input_ids[:_TOKENS]
    return torch.tensor([ids or [0]], device=loaded.model.device)


def _output(loaded: LoadedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits (1, T, V), or a score (1, 1)."""
    inputs = {"input_ids": ids, "attention_mask": mask}
    if loaded.media_inputs:
        labels = ids.masked_fill(mask == 0, -100)  # a text that is trained as a whole
        inputs |= loaded.media_inputs(inputs, labels, loaded.processor)
    found: Tensor = loaded.model(**inputs, use_cache=False).logits
    return found.float()


def _with_media(loaded: LoadedModel) -> Iterator[dict[str, Tensor]]:
    """Inputs of a short text with an image, and of one with a sound, if the model takes them."""
    media = media_rows(loaded)
    for inputs in media.probes() if media else ():
        yield {name: each.to(loaded.model.device) for name, each in inputs.items()}


def _equal(one: Tensor, other: Tensor, loaded: LoadedModel) -> bool:
    """Compare with a tolerance. With rounding, a router may choose another expert: then half of the
    tokens have to agree."""
    if one.dim() == 3:
        other = other[:, : one.shape[1]]
    if one.shape != other.shape:
        return False
    differences = (one - other).abs().amax(dim=-1).flatten()
    scale = max(float(one.abs().max()), 1e-3)
    rounds = loaded.model.dtype != torch.float32 or torch.is_autocast_enabled(one.device.type)
    if not rounds and not loaded.quantized:
        return float(differences.max()) <= _EXACT * scale
    return float(differences.median()) <= _ROUNDED * scale
