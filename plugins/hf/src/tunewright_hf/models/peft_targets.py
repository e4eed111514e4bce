"""Target modules of a PEFT adapter, in PEFT's notation."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.forward_check import without_gradient
from tunewright_hf.models.modules import matching, within
from tunewright_hf.models.peft_import import without_bitsandbytes
from tunewright_hf.models.remote_code import is_foreign

with without_bitsandbytes():
    import peft
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

if TYPE_CHECKING:
    from tunewright_hf.models.peft import PeftOptions

__all__ = ["also_trained", "embeddings", "ending_in", "fused_experts", "new_token_rows", "targets"]

Notify = Callable[[str, str], None]  # message, level


def targets(loaded: LoadedModel, candidates: list[str], options: "PeftOptions") -> list[str]:
    """Names of the modules to adapt: leaf names such as q_proj if these select the same modules,
    else full names.

    candidates: full names for all-linear. Raises RecipeError if a name matches no module, if
    nothing is left, or if a module shares its weights with another.
    """
    if options.targets == "all-linear":
        wanted = set(candidates) - _heads(loaded.model)
        left_alone = (*loaded.adapter_exclude, *options.exclude)
    else:
        every = [name for name, _ in loaded.model.named_modules()]
        wanted = matching(every, options.targets, "adapter.targets")
        # `lm_head` among the targets overrides the exclusion of heads
        asked = {
            part
            for part in loaded.adapter_exclude
            if any(within(target, [part]) for target in options.targets)
        }
        kept = (part for part in loaded.adapter_exclude if part not in asked)
        left_alone = (*kept, *options.exclude)
    wanted = {name for name in wanted if not within(name, left_alone)}
    if options.targets == "all-linear":
        wanted -= _rewritten(loaded.model, wanted)
    if not wanted:
        raise RecipeError("no module is left to adapt", place="adapter.targets")
    _check_tied(loaded.model, wanted)
    leaves = sorted({name.rpartition(".")[2] for name in wanted})
    return leaves if ending_in(loaded.model, leaves) == wanted else sorted(wanted)


def also_trained(model: Any, endings: list[str]) -> list[str] | None:
    """Full names for modules_to_save: PEFT would match `norm` with every module whose name ends in
    these letters."""
    every = (name for name, _ in model.named_modules())
    return sorted(matching(every, endings, "adapter.modules_to_save")) or None


def ending_in(model: Any, endings: Iterable[str]) -> set[str]:
    """Full names of the modules that PEFT selects for these targets."""
    every = [name for name, _ in model.named_modules()]
    return {name for name in every if any(f".{name}".endswith(f".{ending}") for ending in endings)}


def fused_experts(model: Any) -> list[str]:
    """Endings of the names of fused experts, for target_parameters: parameters (experts, rows,
    columns). Raises RecipeError if there are none."""
    fused = [
        name for name, p in model.named_parameters() if p.ndim == 3 and within(name, ["experts"])
    ]
    found = {".".join(name.split(".")[-3:]) for name in fused}
    if not found:
        raise RecipeError("the model has no experts", place="adapter.experts")
    return sorted(found)


def embeddings(model: Any) -> list[str]:
    """Full names of the input embeddings, and of the output embeddings if they have weights of
    their own. Raises RecipeError if the head has a bias: PEFT would leave it out."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = [name for name, module in model.named_modules() if module is table]
    if head is not None and head.weight is not table.weight:
        found += sorted(_heads(model))
    if head is not None and getattr(head, "bias", None) is not None:
        problem = "the output embeddings have a bias, which PEFT's trainable tokens leave out"
        raise RecipeError(problem, place="adapter", hint="set adapter: full")
    return found


def new_token_rows(loaded: LoadedModel) -> dict[str, list[int]] | None:
    """trainable_token_indices of PEFT for the new tokens; None if there are none."""
    if not loaded.new_tokens:
        return None
    return {name: list(loaded.new_tokens) for name in embeddings(loaded.model)}


def leave_out_unreached(
    loaded: LoadedModel, candidates: list[str], options: "PeftOptions", notify: Notify
) -> None:
    """Add to loaded.adapter_exclude what the model's output does not depend on, such as heads for
    tokens further on: an adapter there would never be trained. Raises RecipeError where the recipe
    names such a module.

    candidates: full names of what all-linear stands for. With several ranks, transformers' own
    classes are left as they are: weights may be loaded after sharding, by rank 0 alone, and all
    ranks have to adapt the same modules.
    """
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if several and not is_foreign(loaded.model):
        return
    named = candidates
    if options.targets != "all-linear":
        every = [name for name, _ in loaded.model.named_modules()]
        named = sorted(matching(every, options.targets, "adapter.targets"))
    left_alone = (*loaded.adapter_exclude, *options.exclude)
    named = [name for name in named if not within(name, left_alone)]
    with one_line("cannot be trained on a few tokens", "adapter"):
        unreached = sorted(without_gradient(loaded, named))
    if not unreached:
        return
    some = ", ".join(unreached[:3]) + (f" and {len(unreached) - 3} more" * (len(unreached) > 3))
    if options.targets != "all-linear" or len(unreached) == len(named):
        problem = f"{some} would get no gradient: the model's output does not depend on it"
        raise RecipeError(problem, place="adapter.targets", hint="leave it out, or exclude it")
    loaded.adapter_exclude += tuple(unreached)
    notify(f"no adapter on {some}: the model's output does not depend on it", "info")


def _heads(model: Any) -> set[str]:
    """Full names of the output embeddings, whatever they are called."""
    head = model.get_output_embeddings()
    return {name for name, module in model.named_modules() if module is head}


def _rewritten(model: Any, names: set[str]) -> set[str]:
    """Named modules that PEFT would not adapt.

    In some mixtures of experts it treats MLPs outside the experts, dense or shared, like the
    experts of before transformers 5. It does so whenever an adapter is loaded, so other tools would
    see a different adapter.
    """
    config = peft.LoraConfig(target_modules=set(names))
    convert_peft_config_for_transformers(config, model, None)
    return names - set(config.target_modules)


def _check_tied(model: Any, wanted: set[str]) -> None:
    """Raise RecipeError for an adapter on one of two modules that share their weights: it could
    not be merged."""
    head = model.get_output_embeddings()
    if head is None or head.weight is not model.get_input_embeddings().weight:
        return
    for name, module in model.named_modules():
        if name in wanted and module in (head, model.get_input_embeddings()):
            raise RecipeError(
                f"{name} cannot be adapted: input and output embeddings share their weights",
                place="adapter.targets",
                hint="modules_to_save trains a copy of it",
            )
